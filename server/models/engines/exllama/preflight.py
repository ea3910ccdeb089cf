"""Whether a folder is one that ExLlamaV2 or V3 computes rightly: decided over its files, without torch or either.

Both read what they do not know as something else: an unknown architecture as Llama, a rope they do not find as the
default one. So what is not on these lists is refused, and what transformers 5 writes is put into the older words.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.models.header import config, listed, parts, read_json

_V2 = """
CohereForCausalLM Cohere2ForCausalLM DbrxForCausalLM Gemma2ForCausalLM Gemma3ForConditionalGeneration
GemmaForCausalLM Glm4ForCausalLM GPT2LMHeadModel GPTBigCodeForCausalLM GraniteForCausalLM InternLM2ForCausalLM
LlamaForCausalLM MiniCPMForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM MixtralForCausalLM
OrionForCausalLM Phi3ForCausalLM Qwen2ForCausalLM Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration
Qwen3ForCausalLM Qwen3MoeForCausalLM Starcoder2ForCausalLM YiForCausalLM
"""
V2 = frozenset(_V2.split())
"""Architectures of ExLlamaV2 0.3.2 (exllamav2/architecture.py)."""

_V3 = """
AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM BailingMoeV3ForCausalLM Cohere2ForCausalLM CohereForCausalLM
DeciLMForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM Dots1ForCausalLM Ernie4_5_ForCausalLM
Ernie4_5_MoeForCausalLM Exaone4ForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration
Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration Glm4ForCausalLM Glm4MoeForCausalLM
Glm4MoeLiteForCausalLM Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration
Glm5NextForConditionalGeneration GlmMoeDsaForCausalLM GptOssForCausalLM HCXVisionV2ForCausalLM HYV3ForCausalLM
HyperCLOVAXForCausalLM IQuestCoderForCausalLM KimiLinearForCausalLM LagunaForCausalLM Lfm2ForCausalLM
Lfm2MoeForCausalLM Lfm2VlForConditionalGeneration LlamaForCausalLM MiMoForCausalLM MiMoV2ForCausalLM
MiniMaxM2ForCausalLM Ministral3ForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM MixtralForCausalLM
NemotronHForCausalLM Olmo3ForCausalLM OlmoHybridForCausalLM Phi3ForCausalLM Qwen2ForCausalLM
Qwen2_5_VLForConditionalGeneration Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM
Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM
Qwen3_5ForConditionalGeneration Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration SeedOssForCausalLM
SmolLM3ForCausalLM SolarOpenForCausalLM Step3p5ForCausalLM
"""
V3 = frozenset(_V3.split())
"""Architectures of ExLlamaV3 1.6.5 that generate by themselves (exllamav3/architecture)."""

ARCHITECTURES = {"exllamav2": V2, "exllamav3": V3}

_ROPE_V2 = ("default", "linear", "llama3", "yarn", "su", "longrope", "mrope")
_SILU = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""Architectures whose activation ExLlamaV2 does not read, but takes for SiLU."""
_LOCAL_ROPE = 10_000.0
"""The base of Gemma 3's local layers, which ExLlamaV2 takes for given."""

_LEGACY = ("quantize_config.json", "quant_config.json")
"""Where AutoGPTQ and AutoAWQ wrote what config.json says today."""


@dataclass(frozen=True)
class Quantised:
    """How the weights of a folder are kept: `kind` exl2, exl3, gptq, awq, float, or another library's own word.

    `bits` on average, 0 where nothing is said; `group` rows share a scale, -1 for all of a column.
    """

    kind: str
    bits: float = 0.0
    group: int = 0
    odd: str | None = None
    """What keeps a kind that is read otherwise from being read; None where nothing does."""

    def __str__(self) -> str:
        if self.kind == "float":
            return "16 bits"
        return f"{self.kind.upper()} of {self.bits:g} bits" if self.bits else self.kind.upper()


def quantised(folder: Path, told: dict[str, Any]) -> Quantised:
    """Of a folder whose config.json is `told`. Raises WeightsError naming a file that cannot be read."""
    said = told.get("quantization_config")
    if said is None:
        said = next((read_json(folder / name) for name in _LEGACY if (folder / name).is_file()), None)
        if said is not None:  # AutoAWQ's older word for it
            said = {"quant_method": "awq" if "w_bit" in said or "zero_point" in said else "gptq", **said}
    if not isinstance(said, dict):
        return _by_tensors(folder)
    kind = str(said.get("quant_method") or "unknown").lower()
    bits = float(said.get("bits") or said.get("w_bit") or 0)
    group = int(said.get("group_size") or said.get("q_group_size") or 0)
    return Quantised(kind, bits, group, _odd(kind, said, bits, group))


def _odd(kind: str, said: dict[str, Any], bits: float, group: int) -> str | None:
    if kind in ("gptq", "awq") and bits != 4:
        return f"it reads {kind.upper()} of 4 bits only, and there are {bits:g}"
    if kind == "gptq" and group > 0 and group & (group - 1):
        return f"it reads GPTQ in groups of a power of two only, and there are {group}"
    if kind == "awq" and str(said.get("version") or "gemm").lower() != "gemm":
        return f"it reads AWQ in the layout gemm only, and there is {said.get('version')}"
    if kind == "awq" and not said.get("zero_point", True):
        return "it reads AWQ with zero points only"
    return None


def _by_tensors(folder: Path) -> Quantised:
    """Early EXL2 folders say nothing in config.json; the names of their tensors do."""
    for name in tensor_names(folder):
        if name.endswith(".q_weight"):
            return Quantised("exl2")
        if name.endswith(".trellis"):
            return Quantised("exl3")
        if name.endswith(".qweight"):
            return Quantised("unknown", odd="its weights are quantised, and config.json does not say how")
    return Quantised("float")


def tensor_names(folder: Path) -> Iterator[str]:
    """Of all safetensors files. Raises WeightsError naming one whose header cannot be read."""
    for file in parts(folder):
        yield from listed(file)[0]


def objection(engine: str, folder: Path) -> str | None:
    """Why `engine`, exllamav2 or exllamav3, cannot compute the model of a folder; None where it can.

    Raises WeightsError naming a file that cannot be read.
    """
    told = config(folder)
    match told.get("architectures"):
        case [str(architecture)]:
            pass
        case _:
            return "config.json should name one architecture"
    if architecture not in ARCHITECTURES[engine]:
        return f"it does not compute {architecture}"
    if not (folder / "tokenizer.json").is_file():
        return "it reads tokenizer.json, and there is none"
    kept = quantised(folder, told)
    reads = ("exl2", "gptq", "awq", "float") if engine == "exllamav2" else ("exl3", "fp8", "mxfp4", "float")
    if kept.kind not in reads:
        return kept.odd or f"it does not read weights quantised by {kept.kind}"
    if engine == "exllamav3":
        return None
    return kept.odd or _unlike_v2(architecture, told)


def _unlike_v2(architecture: str, told: dict[str, Any]) -> str | None:
    """What config.json declares that would change the numbers and that ExLlamaV2 passes over."""
    if architecture in _SILU and (activation := told.get("hidden_act", "silu")) != "silu":
        return f"it computes silu, and hidden_act is {activation}"
    if told.get("use_sliding_window") and architecture.startswith("Qwen"):
        return "it computes no sliding window for this architecture, and use_sliding_window is set"
    for words in (told, _inner(told)):
        for name, rope in _ropes(words):
            kind = rope.get("rope_type") or rope.get("type") or "default"
            if kind not in _ROPE_V2:
                return f"it does not compute rope scaling of type {kind}"
            if name == "sliding_attention" and float(rope.get("rope_theta", _LOCAL_ROPE)) != _LOCAL_ROPE:
                return f"it computes local layers with a rope_theta of {_LOCAL_ROPE:g} only"
    return None


def _inner(told: dict[str, Any]) -> dict[str, Any]:
    inner = told.get("text_config")
    return inner if isinstance(inner, dict) else {}


def _ropes(words: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every rope a configuration declares, with the kind of layer it is for; "" for all."""
    if isinstance(scaling := words.get("rope_scaling"), dict):
        yield "", scaling
    parameters = words.get("rope_parameters")
    if not isinstance(parameters, dict):
        return
    layers = {name: each for name, each in parameters.items() if isinstance(each, dict)}
    yield from layers.items() if layers else [("", parameters)]


def rewritten(told: dict[str, Any]) -> dict[str, Any]:
    """config.json in the words ExLlamaV2 reads: what it has already in them comes back as it is.

    transformers 5 writes `rope_parameters` for `rope_theta` and `rope_scaling`, and `dtype` for `torch_dtype`.
    """
    made = _older(told)
    if inner := _inner(told):
        made["text_config"] = _older(inner)
    if isinstance(tower := told.get("vision_config"), dict):
        made["vision_config"] = _older_tower(tower)
    return made


def beside_tower(told: dict[str, Any]) -> dict[str, Any]:
    """config.json of a model of Qwen's that sees in the words ExLlamaV3 reads, which has older ones than transformers 5
    for it: what comes under `text_config` today stood beside the vision tower's, whose type had no ending."""
    tower = told.get("vision_config")
    kind = str(tower.get("model_type")) if isinstance(tower, dict) else ""
    if not isinstance(tower, dict) or not kind.startswith("qwen"):
        return told
    made = {**told, "vision_config": {**tower, "model_type": kind.removesuffix("_vision")}}
    if told.get("architectures") == ["Qwen2_5_VLForConditionalGeneration"]:
        words = {key: value for key, value in _inner(told).items() if key != "model_type"}
        made = {**words, **made}
        made["vision_config"]["spatial_patch_size"] = tower.get("spatial_patch_size") or tower["patch_size"]
    return made


def _older_tower(words: dict[str, Any]) -> dict[str, Any]:
    """A vision tower's own rope has a base and nothing else; the size of a patch had two names."""
    made = {key: value for key, value in words.items() if key != "rope_parameters"}
    if isinstance(rope := words.get("rope_parameters"), dict) and "rope_theta" in rope:
        made.setdefault("rope_theta", rope["rope_theta"])
    if "patch_size" in made and "spatial_merge_size" in made:  # of Qwen's towers
        made.setdefault("spatial_patch_size", made["patch_size"])
    return made


def _older(words: dict[str, Any]) -> dict[str, Any]:
    made = dict(words)
    if "dtype" in made and "torch_dtype" not in made:
        made["torch_dtype"] = made["dtype"]
    for name, rope in _ropes({"rope_parameters": words.get("rope_parameters")}):
        if name == "sliding_attention":
            continue
        rope = dict(rope)
        for key in ("rope_theta", "partial_rotary_factor"):
            if rope.get(key) is not None:
                made[key] = rope.pop(key)
            rope.pop(key, None)
        kind = rope.pop("type", None) or "default"
        kind = rope.pop("rope_type", None) or kind
        if "mrope_section" in rope:
            kind = "mrope"
        if (trained := rope.get("original_max_position_embeddings")) is not None:
            made.setdefault("original_max_position_embeddings", trained)
        if kind != "default":
            made["rope_scaling"] = {"rope_type": kind, **rope}
    return made | _one_word(made.get("rope_scaling"))


def _one_word(scaling: object) -> dict[str, Any]:
    """`rope_scaling` where it names its type twice, which ExLlamaV2 refuses, or for nothing."""
    if not isinstance(scaling, dict):
        return {}
    if (scaling.get("rope_type") or scaling.get("type")) == "default" and "mrope_section" not in scaling:
        return {"rope_scaling": None}
    if {"type", "rope_type"} <= scaling.keys():
        return {"rope_scaling": {key: value for key, value in scaling.items() if key != "type"}}
    return {}
