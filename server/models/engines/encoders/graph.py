"""An encoder's graph in OpenVINO's own operations, from config and safetensors, without torch. For workers only."""

from collections.abc import Sequence
from pathlib import Path

import openvino as ov

from server.models.engines.encoders.bert import Bert, Distil, Spans
from server.models.engines.encoders.body import Body
from server.models.engines.encoders.config import Shape
from server.models.engines.encoders.rotary import Modern, Nomic, Qwen3
from server.models.engines.encoders.tensors import Layered, opened

VERSION = 4
"""Part of the cache's key: to be raised with every change of what is built here."""

_BODIES: dict[str, type[Body]] = {
    "bert": Bert,
    "roberta": Bert,
    "xlm-roberta": Bert,
    "distilbert": Distil,
    "modernbert": Modern,
    "nomic_bert": Nomic,
    "qwen3": Qwen3,
}


def build(weights: Sequence[Path], shape: Shape) -> ov.Model:
    """The encoder as a graph from input_ids and attention_mask [B, S] int64.

    For embed the output is `embedding` [B, hidden] float32 of unit length; for rerank `score` [B, 1] float32, 0 to 1,
    and families with token types have a third input, token_type_ids. Raises ValueError naming the file that cannot be
    read, or the tensor that is missing or has another shape.
    """
    # Mapped, not loaded: a big model's weights are in memory once, as the graph's constants.
    with opened(weights) as tensors:
        return _BODIES[shape.family](tensors, shape).model()


def build_spans(weights: Sequence[Path], trained: Path, shape: Shape) -> ov.Model:
    """A BERT encoder with a span head: `spans` [B, S, 2] float32 from input_ids, attention_mask and token_type_ids.

    Embeddings come from `weights`, layers and head (`qa_outputs`) from `trained`, where they may be int8 with one
    float32 scale a row. Raises ValueError as `build` does.
    """
    with opened(weights) as given, opened([trained]) as own:
        return Spans(Layered(own, given), shape).model()
