"""Hugging Face folders as weights: config.json and any number of safetensors, quantised to int8 on the way in."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.engines.paged.weights import Float, Matrix, Shape, check, frequencies, quantised, real, whole
from server.models.families import FAMILIES, unlike_config
from server.models.header import WeightsError, apart, config, indexed, listed

_ONCE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
_LAYER = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}
_ONE = "model.safetensors"
_WIDTHS = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True)
class _Entry:
    file: Path
    name: str
    kind: str
    size: tuple[int, ...]
    start: int
    """Its first byte in the file."""


class Folder:
    """A folder with config.json and *.safetensors. Raises WeightsError where it is not for this engine, or broken."""

    def __init__(self, path: Path, *, keep_floats: bool = False) -> None:
        self.path = path
        self.keep_floats = keep_floats
        self._config = config(path)
        where = path / "config.json"
        kinds = self._config.get("architectures")
        kind = kinds[0] if isinstance(kinds, list) and kinds else None
        if not isinstance(kind, str) or kind not in FAMILIES["folder"]:
            raise WeightsError(f"{where}: the architecture {kind} is not one of {', '.join(FAMILIES['folder'])}")
        self.family = FAMILIES["folder"][kind]
        try:
            self.shape = self._shape()
        except WeightsError as error:
            raise WeightsError(f"{where}: {error}") from None
        self._tensors = _tensors(path)
        try:
            check(self.shape, folder_name, self._size)
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    # ---- the configuration --------------------------------------------------------------------------------------

    def _shape(self) -> Shape:
        if (unlike := unlike_config(self._config)) is not None:
            raise WeightsError(unlike)
        heads, hidden = self._count("num_attention_heads"), self._count("hidden_size")
        head_dim = self._count("head_dim", hidden // max(1, heads))
        return Shape(
            family=self.family,
            layers=self._count("num_hidden_layers"),
            heads=heads,
            kv_heads=self._count("num_key_value_heads", heads),
            head_dim=head_dim,
            hidden=hidden,
            ffn=self._count("intermediate_size"),
            vocabulary=self._count("vocab_size"),
            context=self._count("max_position_embeddings", 0),
            eps=self._real("rms_norm_eps"),
            frequencies=self._frequencies(head_dim),
            window=self._window(),
        )

    def _frequencies(self, head_dim: int) -> NDArray[np.float32]:
        # transformers 5 moved theta and the scaling into `rope_parameters`.
        rope, scaling = self._object("rope_parameters"), self._object("rope_scaling")
        theta = rope.get("rope_theta")
        if theta is None:
            theta = self._real("rope_theta", 10000.0)
        if isinstance(theta, bool) or not isinstance(theta, (int, float)):
            raise WeightsError(f"rope_parameters.rope_theta should be a number, but is {theta!r}")
        if not 0 < head_dim <= 1 << 16:
            raise WeightsError(f"a head of {head_dim} is not supported")
        return frequencies(head_dim, float(theta), rope if rope.get("rope_type", "default") != "default" else scaling)

    def _window(self) -> int:
        if not self._config.get("use_sliding_window", self.family == "mistral"):
            return 0
        return self._count("sliding_window", 0)

    def _object(self, key: str) -> dict[str, Any]:
        value = self._config.get(key) or {}
        if not isinstance(value, dict):
            raise WeightsError(f"{key} should be an object, but is {value!r:.60}")
        return value

    def _count(self, key: str, default: int | None = None) -> int:
        return whole(key, self._told(key, default))

    def _real(self, key: str, default: float | None = None) -> float:
        return real(key, self._told(key, default))

    def _told(self, key: str, default: float | None) -> object:
        value = self._config.get(key)
        return default if value is None else value

    # ---- tensors ------------------------------------------------------------------------------------------------

    def has(self, name: str, layer: int | None = None) -> bool:
        full = folder_name(name, layer)
        # A checkpoint of tied weights may hold the embedding twice; once is enough.
        return full in self._tensors and not (name == "head" and self._config.get("tie_word_embeddings") is True)

    def vector(self, name: str, layer: int | None = None) -> NDArray[np.float32]:
        return self._values(name, layer)

    def matrix(self, name: str, layer: int | None = None) -> Matrix:
        values = self._values(name, layer)
        return Float(values) if self.keep_floats else quantised(values)

    def _size(self, name: str) -> tuple[int, ...] | None:
        found = self._tensors.get(name)
        return None if found is None else found.size

    def rows(self, name: str, layer: int | None, start: int, count: int) -> NDArray[np.float32]:
        """Rows `start` to `start` + `count` of a tensor, read and nothing else of the file. Raises WeightsError."""
        entry = self._entry(name, layer)
        each = math.prod(entry.size[1:])
        return self._read(entry, start * each, count * each).reshape(count, *entry.size[1:])

    def _values(self, name: str, layer: int | None) -> NDArray[np.float32]:
        entry = self._entry(name, layer)
        return self._read(entry, 0, math.prod(entry.size)).reshape(entry.size)

    def _entry(self, name: str, layer: int | None) -> _Entry:
        full = folder_name(name, layer)
        if full not in self._tensors:
            raise WeightsError(f"{self.path}: the tensor {full} is missing")
        return self._tensors[full]

    @staticmethod
    def _read(entry: _Entry, start: int, count: int) -> NDArray[np.float32]:
        """`count` values of the tensor from the value `start` on."""
        width = _WIDTHS[entry.kind]
        octets = count * width
        raw = np.fromfile(entry.file, np.uint8, octets, offset=entry.start + start * width)
        if len(raw) != octets:
            raise WeightsError(f"{entry.file}: was cut off while it was read, in the tensor {entry.name}")
        match entry.kind:
            case "BF16":
                wide = raw.view(np.uint16).astype(np.uint32)
                values = np.left_shift(wide, 16, out=wide).view(np.float32)
            case "F16":
                values = raw.view(np.float16).astype(np.float32)
            case _:
                values = raw.view(np.float32)
        if not np.isfinite(values).all():
            raise WeightsError(f"{entry.file}: corrupt: the tensor {entry.name} holds values that are not numbers")
        return values


def folder_name(name: str, layer: int | None) -> str:
    """What Hugging Face folders call a tensor of `weights.tensors`."""
    stem, _, kind = name.partition(".")
    return f"{_ONCE[stem] if layer is None else f'model.layers.{layer}.{_LAYER[stem]}'}.{kind or 'weight'}"


def _tensors(folder: Path) -> dict[str, _Entry]:
    return {entry.name: entry for file in _files(folder) for entry in _entries(file)}


def _files(folder: Path) -> list[Path]:
    """One that holds all, or those that the index names, or else all that there are. Raises WeightsError."""
    if (one := folder / _ONE).exists():
        return [one]
    files = indexed(folder) or sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{folder}: there is no .safetensors file")
    return files


def _entries(file: Path) -> list[_Entry]:
    """What the file's header lists. Read here and not by safetensors, whose numpy side knows no bfloat16."""
    header, begin = listed(file)
    size = file.stat().st_size
    entries = [_entry(file, name, told, begin, size) for name, told in header.items()]
    try:
        apart((each.name, each.start, math.prod(each.size) * _WIDTHS[each.kind]) for each in entries)
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from None
    return entries


def _entry(file: Path, name: str, told: object, begin: int, end: int) -> _Entry:
    """One tensor, held against the file: what follows `begin` up to `end` are data."""
    match told:
        case {"dtype": str(kind), "shape": [*size], "data_offsets": [int(start), int(stop)]} if all(
            type(each) is int and each >= 0 for each in size
        ):
            pass
        case _:
            raise WeightsError(f"{file}: corrupt: the header's entry for {name} is not one of a tensor")
    if not 0 <= start <= stop <= end - begin:
        raise WeightsError(f"{file}: cut off or corrupt in the tensor {name}")
    if kind not in _WIDTHS:
        raise WeightsError(f"{file}: the tensor {name} is of type {kind}; {', '.join(_WIDTHS)} are read")
    if math.prod(size) * _WIDTHS[kind] != stop - start:
        raise WeightsError(f"{file}: corrupt: the tensor {name} has {stop - start} bytes for {size} of {kind}")
    return _Entry(file, name, kind, tuple(size), begin + start)
