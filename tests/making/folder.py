"""Writes a model as a Hugging Face folder: config.json, safetensors, tokenizer.json, template, generation_config.json.

Format of the weights: github.com/huggingface/safetensors, README.md, "Format".
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.made.shapes import Shape, Tensor, tensors
from server.models.made.vocabulary import ENDOFTEXT, IM_END, SPECIAL, Vocabulary
from server.models.made.weights import Floats, Weights

_TYPES = {"f32": ("F32", 4, "float32"), "f16": ("F16", 2, "float16"), "bf16": ("BF16", 2, "bfloat16")}
"""Name in the file, bytes, name in config.json."""
QUANTS = tuple(_TYPES)
_CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}


def write_folder(
    folder: Path, quant: str, shards: int, shape: Shape, vocabulary: Vocabulary, weights: Weights, template: str
) -> None:
    """Write all files; `shards` above 1 splits the weights and adds their index."""
    _write_json(folder / "config.json", config(shape, vocabulary, quant))
    end, other = vocabulary.id(IM_END), vocabulary.id(ENDOFTEXT)
    _write_json(
        folder / "generation_config.json", {"bos_token_id": other, "eos_token_id": [end, other], "pad_token_id": other}
    )
    (folder / "tokenizer.json").write_text(vocabulary.tokenizer().to_str(pretty=True), encoding="utf-8")
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(shape, vocabulary, template))
    everything = list(tensors(shape))
    if shards == 1:
        write_safetensors(folder / "model.safetensors", everything, weights, quant)
        return
    places: dict[str, str] = {}
    for number in range(shards):
        part = everything[len(everything) * number // shards : len(everything) * (number + 1) // shards]
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(folder / name, part, weights, quant)
        places |= {tensor.name: name for tensor in part}
    size = sum(int(np.prod(tensor.shape)) for tensor in everything) * _TYPES[quant][1]
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": places})


def config(shape: Shape, vocabulary: Vocabulary, quant: str) -> dict[str, Any]:
    """What config.json says, in the fields Hugging Face's classes of these families have."""
    settings: dict[str, Any] = {
        "architectures": [f"{_CLASSES[shape.family]}ForCausalLM"],
        "model_type": shape.family,
        "torch_dtype": _TYPES[quant][2],
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.theta,
        "rope_scaling": None,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": vocabulary.id(ENDOFTEXT),
        "eos_token_id": vocabulary.id(IM_END),
    }
    if shape.rope:
        settings["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": shape.rope.factor,
            "low_freq_factor": shape.rope.low_freq_factor,
            "high_freq_factor": shape.rope.high_freq_factor,
            "original_max_position_embeddings": shape.rope.original_context,
        }
    if shape.family == "mistral":
        settings["sliding_window"] = shape.window
    if shape.family.startswith("qwen"):
        # Published Qwen models name a window and do not use it: a reader must heed the switch.
        settings |= {"use_sliding_window": False, "sliding_window": 64}
    return settings


def write_safetensors(path: Path, chosen: Sequence[Tensor], weights: Weights, quant: str) -> None:
    """Eight bytes of header length, the header as JSON padded to a multiple of 8, then the tensors without gaps."""
    name, size, _ = _TYPES[quant]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in chosen:
        end = offset + int(np.prod(tensor.shape)) * size
        header[tensor.name] = {"dtype": name, "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in chosen:
            file.write(_bytes(weights.values(tensor), quant))


def _bytes(values: Floats, quant: str) -> bytes:
    if quant == "bf16":
        # The upper half of a float32, rounded to nearest, ties to even.
        whole = values.astype("<f4").view("<u4")
        rounded: NDArray[np.uint32] = (whole + 0x7FFF + ((whole >> 16) & 1)) >> 16
        return rounded.astype("<u2").tobytes()
    return values.astype("<f2" if quant == "f16" else "<f4").tobytes()


def _tokenizer_config(shape: Shape, vocabulary: Vocabulary, template: str) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": ENDOFTEXT,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(vocabulary.id(token)): {
                "content": token,
                "special": True,
                "normalized": False,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
            }
            for token in SPECIAL
        },
        "chat_template": template,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
