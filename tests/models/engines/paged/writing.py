"""GGUF files and folders of one tiny llama, whole or broken as a test wants them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from safetensors.numpy import save_file

HIDDEN, HEADS, KV_HEADS, FFN, VOCABULARY = 64, 2, 1, 96, 128

FIELDS: dict[str, Any] = {
    "llama.block_count": 1,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": FFN,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.context_length": 256,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
}
_SIZES = {
    "token_embd": (VOCABULARY, HIDDEN),
    "blk.0.attn_q": (HIDDEN, HIDDEN),
    "blk.0.attn_k": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_v": (HIDDEN // 2, HIDDEN),
    "blk.0.attn_output": (HIDDEN, HIDDEN),
    "blk.0.ffn_gate": (FFN, HIDDEN),
    "blk.0.ffn_up": (FFN, HIDDEN),
    "blk.0.ffn_down": (HIDDEN, FFN),
    "blk.0.attn_norm": (HIDDEN,),
    "blk.0.ffn_norm": (HIDDEN,),
    "output_norm": (HIDDEN,),
}
_NAMES = {
    "token_embd": "model.embed_tokens",
    "blk.0.attn_q": "model.layers.0.self_attn.q_proj",
    "blk.0.attn_k": "model.layers.0.self_attn.k_proj",
    "blk.0.attn_v": "model.layers.0.self_attn.v_proj",
    "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
    "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj",
    "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
    "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
    "blk.0.attn_norm": "model.layers.0.input_layernorm",
    "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    "output_norm": "model.norm",
}
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 1,
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}


def values() -> dict[str, NDArray[np.float32]]:
    """Every tensor's values under its GGUF name, without `.weight`."""
    random = np.random.default_rng(0)
    return {name: random.normal(0, 0.3, size).astype(np.float32) for name, size in _SIZES.items()}


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    fields: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[Any] | None] | None = None,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
) -> Path:
    """`fields` and `tensors` replace what a whole file has; None leaves out. Matrices are of type `kind`."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (FIELDS | dict(fields or {})).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, list):
            writer.add_array(key, value)
        elif value is not None:
            writer.add_uint32(key, value)
    for name, array in (values() | dict(tensors or {})).items():
        if array is None:
            continue
        matrix = array.ndim == 2
        raw = gguf.quantize(array, kind) if matrix else array
        writer.add_tensor(f"{name}.weight", raw, raw_dtype=kind if matrix else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(
    path: Path,
    *,
    config: Mapping[str, Any] | None = None,
    tensors: Mapping[str, NDArray[Any] | None] | None = None,
) -> Path:
    """As `write_gguf`, a Hugging Face folder; tensors under their GGUF names."""
    path.mkdir()
    told = {key: value for key, value in (CONFIG | dict(config or {})).items() if value is not None}
    (path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    kept = (values() | dict(tensors or {})).items()
    save_file(
        {f"{_NAMES[name]}.weight": array for name, array in kept if array is not None}, path / "model.safetensors"
    )
    return path
