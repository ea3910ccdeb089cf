"""Which decoders Hearth's own engine computes, in the words of their files. Loads no weights."""

from typing import Any

from server.models.header import Header

FAMILIES = {
    "gguf": {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"},
    "folder": {
        "LlamaForCausalLM": "llama",
        "MistralForCausalLM": "mistral",
        "Qwen2ForCausalLM": "qwen2",
        "Qwen3ForCausalLM": "qwen3",
    },
}
"""Architectures, as each format names them (general.architecture, config.json's architectures), and their families."""

ROPE = {"gguf": ("none", "default", "linear"), "folder": ("none", "default", "linear", "llama3")}
"""How rotary frequencies may be stretched; a GGUF file has llama3's way as a tensor of factors instead."""

TOKENIZERS = ("gpt2", "llama")
"""The kinds of tokenizers in a GGUF file (tokenizer.ggml.model): byte-level BPE, and SentencePiece's BPE."""

ACTIVATION = "silu"


def unlike_config(told: dict[str, Any]) -> str | None:
    """What a config.json of one of these architectures declares that would change the numbers and is not computed."""
    if told.get("quantization_config") is not None:
        return "quantization_config: weights that are quantised already are not read from a folder"
    if (activation := told.get("hidden_act", ACTIVATION)) != ACTIVATION:
        return f"hidden_act {activation} is not supported; {ACTIVATION} is"
    # transformers 5 moved the rope's settings into `rope_parameters`.
    rope = told.get("rope_parameters")
    share = rope.get("partial_rotary_factor") if isinstance(rope, dict) else None
    share = told.get("partial_rotary_factor") if share is None else share
    if share not in (None, 1):
        return f"partial_rotary_factor {share!r} is not supported; whole heads are rotated"
    mistral = told.get("architectures") == ["MistralForCausalLM"]
    if not told.get("use_sliding_window", mistral):
        return None
    kinds = told.get("layer_types")
    if isinstance(kinds, list) and "sliding_attention" in kinds and "full_attention" in kinds:
        return "layer_types: a sliding window in some layers only is not supported"
    if kinds is None and not mistral and told.get("max_window_layers"):
        return "max_window_layers: a sliding window in some layers only is not supported"
    return None


def unlike_header(header: Header) -> str | None:
    """The same of a GGUF file of one of these architectures."""
    if header.count("split.count", 1) > 1:
        return "split.count: weights in several files are not supported; join them with llama-gguf-split --merge"
    if header.count("%.expert_count", 0):
        return f"{header.architecture}.expert_count: mixtures of experts are not supported"
    width = header.count("%.embedding_length", 0) // max(1, header.count("%.attention.head_count", 1))
    width = header.count("%.attention.key_length", width)
    for key in ("attention.value_length", "rope.dimension_count"):
        if (found := header.count(f"%.{key}", width)) != width:
            return f"{header.architecture}.{key} is {found}, but a head of {width} is all that is supported"
    return None
