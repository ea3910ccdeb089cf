"""How much of a GPU's memory a model takes with ExLlama: an estimate over the headers of its files.

Weights are counted as they are kept, tensor by tensor; keys and values from the sizes in config.json. Only the rest is
a rule of thumb: CUDA's own context, and the buffers of one pass. None of it was measured on a GPU yet.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config.model import LocalModel
from server.models.engines.exllama.generator import CHUNK, PAGE, pages
from server.models.engines.exllama.sight import blind, in_tower, processor
from server.models.header import WeightsError, config, listed, parts

_CONTEXT = 500 * 10**6
"""What CUDA, cuBLAS and the kernels of torch take before anything is loaded."""
_UNPACKED = 256 * 10**6
"""Weights of 4 bits are unpacked for long prompts, so many bytes of them at once."""

_PIXELS = 2048**2
"""Of the largest picture that reaches a tower; most towers scale it down further."""

_BITS = {
    "exllamav2": {"auto": 16.0, "fp16": 16.0, "q8": 8.5, "q6": 6.5, "q4": 4.5},
    "exllamav3": {"auto": 16.0, "fp16": 16.0, "q8": 8.5, "q6": 6.5, "q4": 4.5},
}
"""Of a key or value, with its share of the scale that 32 of them have. V2's q6 are keys of 8 bits and values of 4."""
_HALVED = {"F32": 2, "F64": 2, "BF16": 2, "F16": 2}
"""Bytes of a value that is kept in 16 bits whatever the file has; everything else stays as it is."""


def needed(engine: str, spec: LocalModel, folder: Path, drafter: Path | None, tokens: int) -> tuple[int, int, int]:
    """Bytes of weights, of keys and values for `tokens`, and of the rest. Raises WeightsError naming a file."""
    tokens = pages(tokens) * PAGE
    told = _words(folder)
    whole = config(folder)
    sees = blind(engine, folder, whole, drafted=drafter is not None) is None
    weights = _weights(engine, folder, sees=sees) + sum(_adapter(each) for each in spec.adapters)
    cache = int(_values(told) * tokens * _BITS[engine][spec.cache] / 8)
    rest = _CONTEXT + _UNPACKED + _buffers(told, spec.parallel)
    if sees:
        rest += _picture(whole["vision_config"], processor(engine, folder) or {})
    if engine == "exllamav2" and spec.cache not in ("auto", "fp16"):
        # A layer's keys and values are unpacked before they are used.
        rest += 2 * _values(told) * tokens // max(1, int(told.get("num_hidden_layers") or 1))
    if drafter is not None:
        small = _words(drafter)
        weights += _weights(engine, drafter, sees=False)
        cache += 2 * _values(small) * tokens
        rest += _buffers(small, spec.parallel)
    return weights, cache, rest


def _words(folder: Path) -> dict[str, Any]:
    told = config(folder)
    inner = told.get("text_config")
    return inner if isinstance(inner, dict) else told


def _values(told: dict[str, Any]) -> int:
    """How many keys and values a token has, all layers together."""
    heads = int(told.get("num_attention_heads") or 1)
    width = int(told.get("head_dim") or int(told.get("hidden_size") or 0) // heads)
    return 2 * int(told.get("num_hidden_layers") or 0) * int(told.get("num_key_value_heads") or heads) * width


def _buffers(told: dict[str, Any], parallel: int) -> int:
    """Of one pass over CHUNK tokens, f16: the residual stream and its neighbours, and the widest layer; then logits."""
    wide = 6 * int(told.get("hidden_size") or 0) + 3 * int(told.get("intermediate_size") or 0)
    return 2 * CHUNK * wide + 2 * parallel * int(told.get("vocab_size") or 0)


def _picture(tower: dict[str, Any], scaled: dict[str, Any]) -> int:
    """Of one pass over a picture of the largest size, f16: as `_buffers`, of patches instead of tokens.

    `scaled` is how pictures are scaled before.
    """
    edges = scaled.get("size") or {}
    edge = int(edges.get("longest_edge") or 2048) if "shortest_edge" not in edges else 2048
    pixels = min(_PIXELS, edge**2, int(scaled.get("max_pixels") or _PIXELS))
    patch = int(tower.get("patch_size") or 14)
    hidden = int(tower.get("embed_dim") or tower.get("hidden_size") or 0)
    inner = int(tower.get("intermediate_size") or hidden * int(tower.get("mlp_ratio") or 4))
    return 2 * (pixels // patch**2) * (6 * hidden + 3 * inner)


def _weights(engine: str, folder: Path, *, sees: bool) -> int:
    """Those of a vision tower only where pictures are seen: else it is left in the files."""
    sizes = {name: size for name, size in _sizes(folder) if sees or not in_tower(name)}
    tied = not any(name.startswith("lm_head.") for name in sizes)
    # ExLlamaV2 looks tokens up on the processor; a table that is the last layer too is on the GPU as well.
    if engine == "exllamav2" and not tied:
        sizes = {name: size for name, size in sizes.items() if not name.endswith("embed_tokens.weight")}
    return sum(sizes.values())


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    for file in parts(folder):
        entries, _ = listed(file)
        try:
            for name, each in entries.items():
                begin, end = each["data_offsets"]
                kept = _HALVED.get(each["dtype"])
                yield name, end - begin if kept is None else kept * math.prod(each["shape"])
        except (ValueError, LookupError, TypeError) as error:
            raise WeightsError(f"{file}: {error}") from error


def _adapter(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("adapter_model.*"))
