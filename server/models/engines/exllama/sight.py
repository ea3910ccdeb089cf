"""Whether ExLlamaV2 or V3 lets the model of a folder see pictures: decided over its files, without torch or either.

A model that sees has a vision tower beside its language model, in the same files, and says in one more file how a
picture is scaled before it is read. Some folders have lost one or the other where they were quantised.
"""

from pathlib import Path
from typing import Any

from server.models.engines.exllama.preflight import tensor_names
from server.models.header import read_json

_V2 = "Mistral3ForConditionalGeneration Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration"
_V3 = """
Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration Mistral3ForConditionalGeneration
Qwen2_5_VLForConditionalGeneration Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration
Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration
"""
SEES = {"exllamav2": frozenset(_V2.split()), "exllamav3": frozenset(_V3.split())}
"""Architectures whose pictures were compared with transformers', or that have the tower of one of these. Gemma 3's are
on neither list: it reads all tokens of a picture at once, and both packages one after another."""

_TOWERS = (
    *("visual.", "vision_tower.", "multi_modal_projector.", "vision_model.", "embed_vision.", "vision_embedder."),
    *("model.visual.", "model.vision_tower.", "model.multi_modal_projector.", "model.vision_model."),
    *("model.embed_vision.", "model.vision_embedder."),
)
"""What the tensors begin with that only pictures need."""

PROCESSOR = "preprocessor_config.json"
_PROCESSORS = (PROCESSOR, "processor_config.json")


def in_tower(tensor: str) -> bool:
    """Whether the tensor of that name is of a vision tower, or what makes its vectors as wide as the model's."""
    return tensor.startswith(_TOWERS)


def blind(engine: str, folder: Path, told: dict[str, Any], *, drafted: bool) -> str | None:
    """Why a model whose config.json is `told` sees no pictures with `engine`; None where it does.

    `drafted` says that another model guesses ahead for it. Raises WeightsError naming a file that cannot be read.
    """
    if not isinstance(told.get("vision_config"), dict):
        return "it has no vision tower"
    architectures = told.get("architectures") or []
    if not SEES[engine].issuperset(architectures):
        return f"{engine} does not compute the pictures of {', '.join(architectures)}"
    if (activation := told["vision_config"].get("hidden_act", "silu")) != "silu" and "Mistral3" in str(architectures):
        return f"its vision tower computes {activation}, and {engine} silu only"
    if image_token(told) is None:
        return "config.json names no image_token_id"
    if processor(engine, folder) is None:
        return f"there is no {PROCESSOR}"
    if not any(map(in_tower, tensor_names(folder))):
        return "its files have no vision tower"
    if drafted:
        return "it has a draft, which is another model and would not see them"
    return None


def image_token(told: dict[str, Any]) -> int | None:
    """The token that stands for a part of a picture in a prompt."""
    named = told.get("image_token_id", told.get("image_token_index"))
    return named if isinstance(named, int) else None


def processor(engine: str, folder: Path) -> dict[str, Any] | None:
    """How a picture is scaled, in the words `engine` reads; None where the folder does not say.

    transformers 5 writes it into processor_config.json, and calls things otherwise than before.
    """
    for name in _PROCESSORS:
        if (folder / name).is_file():
            said = read_json(folder / name)
            said = said.get("image_processor", said)
            if isinstance(said, dict) and "image_processor_type" in said:
                return _named(engine, said)
    return None


def _named(engine: str, said: dict[str, Any]) -> dict[str, Any]:
    kind = str(said["image_processor_type"]).removesuffix("Fast").removesuffix("Pil")
    made = {**said, "image_processor_type": kind}
    if not kind.startswith("Qwen2"):
        return made
    if engine == "exllamav3":  # it knows this name for all of them, the other for some
        made["image_processor_type"] = f"{kind}Fast"
    edges = made.get("size") or {}
    if edges.keys() >= {"shortest_edge", "longest_edge"}:
        made.setdefault("min_pixels", edges["shortest_edge"])
        made.setdefault("max_pixels", edges["longest_edge"])
    elif made.keys() >= {"min_pixels", "max_pixels"}:
        made["size"] = {"shortest_edge": made["min_pixels"], "longest_edge": made["max_pixels"]}
    return made
