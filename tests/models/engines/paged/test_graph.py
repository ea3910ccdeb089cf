"""The graph of a decoder: what OpenVINO makes of it is what is fast."""

from collections import Counter

import openvino as ov
import pytest

from server.models.engines.paged.constants import Constants
from server.models.engines.paged.gguf_file import GgufFile
from server.models.engines.paged.graph import decoder
from server.models.made.shapes import FAMILIES
from tests.making import made


def _kind(operation: ov.Node) -> str:
    return str(operation.get_rt_info()["layerType"].value)


@pytest.mark.parametrize("quant", ["q8_0", "q4_0"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_is_four_compressed_multiplications_and_one_attention(family: str, quant: str) -> None:
    file = GgufFile(made("random", family=family, quant=quant))
    constants = Constants(None, 0)
    compiled = ov.Core().compile_model(decoder(file, constants.keep).model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    operations = compiled.get_runtime_model().get_ordered_ops()
    kinds = Counter(map(_kind, operations))
    layers = file.shape.layers
    # q, k and v are one, gate and up are one; then o and down, and the head once.
    assert kinds["FullyConnected"] == 4 * layers + 1
    assert kinds["PagedAttention"] == layers
    assert kinds["RoPE"] == 2 * layers
    assert kinds["RMS"] == (4 if family == "qwen3" else 2) * layers + 1
    assert kinds["Transpose"] == 0
    weights = {
        operation.input_value(1).get_element_type().get_type_name()
        for operation in operations
        if _kind(operation) == "FullyConnected"
    }
    assert weights == {"i8" if quant == "q8_0" else "u4"}


def test_the_inputs_and_the_output_are_those_that_are_promised() -> None:
    constants = Constants(None, 0)
    model = decoder(GgufFile(made("random", family="qwen3")), constants.keep).model
    names = [port.any_name for port in model.inputs]
    assert names[:8] == [
        "input_ids",
        "position_ids",
        "past_lens",
        "subsequence_begins",
        "block_indices",
        "block_indices_begins",
        "max_context_len",
        "sampled_tokens_indices",
    ]
    assert names[8:] == ["key_cache.0", "value_cache.0", "key_cache.1", "value_cache.1"]
    (logits,) = model.outputs
    assert logits.any_name == "logits"
    assert logits.partial_shape[1].get_length() == 2048
