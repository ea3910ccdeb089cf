"""What a decoder's graph is built from, whatever file it came from: its shape, its matrices and its vectors."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.models.families import ROPE
from server.models.header import WeightsError

GROUP = 32
"""Columns that share one scale, in GGUF's Q8_0 and Q4_0 and in ours."""


@dataclass(frozen=True)
class Shape:
    """A decoder of the llama family. `window` 0 means that attention sees everything before it."""

    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    ffn: int
    vocabulary: int
    context: int
    eps: float
    frequencies: NDArray[np.float32] = field(compare=False)
    """Rotary angle per position, [head_dim / 2]."""
    window: int = 0

    def __post_init__(self) -> None:
        """Raises WeightsError for sizes that no decoder has."""
        for name in ("layers", "heads", "kv_heads", "head_dim", "hidden", "ffn", "vocabulary"):
            if getattr(self, name) < (0 if name == "layers" else 1):
                raise WeightsError(f"{name} is {getattr(self, name)}")
        if self.heads % self.kv_heads:
            raise WeightsError(f"{self.heads} heads cannot share {self.kv_heads} heads of keys and values evenly")
        if self.head_dim % 2:
            raise WeightsError(f"a head of {self.head_dim} cannot be rotated in pairs")
        if not 0 < self.eps < 1:
            raise WeightsError(f"the epsilon of its norms is {self.eps}")
        if self.window < 0:
            raise WeightsError(f"its sliding window is {self.window}")


@dataclass(frozen=True)
class Int8:
    """Rows of int8 in groups: values [N, K/32, 32], scales f16 [N, K/32, 1]."""

    values: NDArray[np.int8]
    scales: NDArray[np.float16]


@dataclass(frozen=True)
class UInt4:
    """Rows of four-bit values with zero point 8: two a byte, low nibble first, [N, K/32, 16]; scales as in Int8."""

    packed: NDArray[np.uint8]
    scales: NDArray[np.float16]


@dataclass(frozen=True)
class Float:
    """Rows as they are, f32 [N, K]."""

    values: NDArray[np.float32]


Matrix = Int8 | UInt4 | Float


class Weights(Protocol):
    """One file or folder of weights. Names are those of `tensors`; a layer is None for what the model has once."""

    shape: Shape

    def has(self, name: str, layer: int | None = None) -> bool:
        """Whether the tensor is there; biases and norms of queries and keys are not in every family."""
        ...

    def vector(self, name: str, layer: int | None = None) -> NDArray[np.float32]:
        """A bias or norm, f32 [N]."""
        ...

    def matrix(self, name: str, layer: int | None = None) -> Matrix:
        """A projection [N, K] that maps K inputs to N outputs, q and k in the rotate-half order of their heads."""
        ...


@dataclass(frozen=True)
class Tensor:
    """One that a decoder of some shape has: numpy's order of sizes; `needed` says that there is none without it."""

    name: str
    layer: int | None
    size: tuple[int, ...]
    needed: bool = True


def tensors(shape: Shape) -> Iterator[Tensor]:
    """All that a decoder of this shape may have."""
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield Tensor("embedding", None, (shape.vocabulary, hidden))
    yield Tensor("norm", None, (hidden,))
    yield Tensor("head", None, (shape.vocabulary, hidden), needed=False)
    matrices = {"q": (queries, hidden), "k": (keys, hidden), "v": (keys, hidden), "o": (hidden, queries)}
    matrices |= {"gate": (shape.ffn, hidden), "up": (shape.ffn, hidden), "down": (hidden, shape.ffn)}
    for layer in range(shape.layers):
        for name, size in matrices.items():
            yield Tensor(name, layer, size)
            yield Tensor(f"{name}.bias", layer, size[:1], needed=False)
        for name in ("attention_norm", "ffn_norm"):
            yield Tensor(name, layer, (hidden,))
        for name in ("q_norm", "k_norm"):
            yield Tensor(name, layer, (shape.head_dim,), needed=shape.family == "qwen3")


def check(
    shape: Shape,
    name_of: Callable[[str, int | None], str],
    size_of: Callable[[str], tuple[int, ...] | None],
) -> None:
    """See that every tensor is there and of its size. Raises WeightsError with the tensor's name in the file.

    `name_of` gives a tensor's name there, `size_of` the size found under it, None where there is none.
    """
    for tensor in tensors(shape):
        name = name_of(tensor.name, tensor.layer)
        found = size_of(name)
        if found is None and tensor.needed:
            raise WeightsError(f"the tensor {name} is missing")
        if found is not None and found != tensor.size:
            raise WeightsError(
                f"the tensor {name} is {_sizes(found)}, but the configuration says {_sizes(tensor.size)}"
            )


def _sizes(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size)) or "a single number"


def joined(parts: Sequence[Matrix]) -> Matrix | None:
    """Matrices of one kind and width as one, their rows one after another; None where their kinds differ.

    One multiplication by many rows costs less than several by few: each has a start of its own.
    """
    first = parts[0]
    if isinstance(first, UInt4):
        packed = [part for part in parts if isinstance(part, UInt4)]
        if len(packed) == len(parts):
            return UInt4(np.concatenate([p.packed for p in packed]), np.concatenate([p.scales for p in packed]))
    elif isinstance(first, Int8):
        whole = [part for part in parts if isinstance(part, Int8)]
        if len(whole) == len(parts):
            return Int8(np.concatenate([p.values for p in whole]), np.concatenate([p.scales for p in whole]))
    else:
        floats = [part for part in parts if isinstance(part, Float)]
        if len(floats) == len(parts):
            return Float(np.concatenate([part.values for part in floats]))
    return None


def count(matrix: Matrix) -> int:
    """Its rows."""
    return len(matrix.packed if isinstance(matrix, UInt4) else matrix.values)


def floats(matrix: Matrix) -> NDArray[np.float32]:
    """What it stands for, f32 [N, K]."""
    match matrix:
        case Float(values):
            return values
        case Int8(signed, scales):
            groups = signed.astype(np.float32)
        case UInt4(packed, scales):
            groups = np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:2], -1).astype(np.float32) - 8
    return (groups * scales.astype(np.float32)).reshape(len(groups), -1)


_ROWS = 1024
"""Rows quantised at a time, so that what lies between is small beside the matrix."""


def quantised(values: NDArray[np.float32]) -> Matrix:
    """Rows [N, K] as symmetric int8 in groups of 32 columns; left as they are where K has no whole groups."""
    rows, columns = values.shape
    if columns % GROUP:
        return Float(values)
    groups = values.reshape(rows, columns // GROUP, GROUP)
    kept = np.empty(groups.shape, np.int8)
    scales = np.empty((*groups.shape[:2], 1), np.float16)
    for start in range(0, rows, _ROWS):
        piece = groups[start : start + _ROWS]
        # The rounding has to be to the scale that is stored, not to the one that was computed.
        stored = (np.abs(piece).max(-1, keepdims=True) / 127).astype(np.float16)
        steps = piece / np.where(stored == 0, 1, stored).astype(np.float32)
        kept[start : start + _ROWS] = np.clip(np.rint(steps, out=steps), -127, 127, out=steps)
        scales[start : start + _ROWS] = stored
    return Int8(kept, scales)


def frequencies(head_dim: int, theta: float, scaling: "dict[str, Any] | None" = None) -> NDArray[np.float32]:
    """Rotary frequencies, [head_dim / 2], stretched as a Hugging Face `rope_scaling` of type linear or llama3 says.

    Raises WeightsError for another type, and for numbers that are missing or make no sense. llama3's rule is that of
    the Llama 3.1 model card: long waves are slowed by `factor`, short ones kept, those between blended.
    """
    scaling = scaling or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in ROPE["folder"]:
        raise WeightsError(f"rope scaling of type {kind} is not supported; {', '.join(ROPE['folder'])} are")
    if not 1 < theta < math.inf:
        raise WeightsError(f"the rope's base is {theta}")
    plain = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if kind in ("none", "default"):
        return plain.astype(np.float32)
    factor = _positive(scaling, "factor")
    if kind == "linear":
        return (plain / factor).astype(np.float32)
    low, high = _positive(scaling, "low_freq_factor"), _positive(scaling, "high_freq_factor")
    original = _positive(scaling, "original_max_position_embeddings")
    if not low < high:
        raise WeightsError(f"rope scaling: low_freq_factor {low} is not below high_freq_factor {high}")
    waves = 2 * np.pi / plain
    blend = np.clip((original / waves - low) / (high - low), 0, 1)
    return ((1 - blend) * plain / factor + blend * plain).astype(np.float32)


def _positive(scaling: dict[str, Any], name: str) -> float:
    value = scaling.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise WeightsError(f"rope scaling: {name} is {value!r}")
    return float(value)


def whole(key: str, value: object) -> int:
    """A count that a file declares under `key`. Raises WeightsError where it is missing, or none."""
    if value is None:
        raise WeightsError(f"{key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 48:
        raise WeightsError(f"{key} should be a whole number, but is {value!r:.60}")
    return value


def real(key: str, value: object) -> float:
    """A number that a file declares under `key`. Raises WeightsError where it is missing, or none."""
    if value is None:
        raise WeightsError(f"{key} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise WeightsError(f"{key} should be a number, but is {value!r:.60}")
    return float(value)
