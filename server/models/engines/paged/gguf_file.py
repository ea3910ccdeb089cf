"""GGUF files as weights: Q8_0 and Q4_0 as they are, everything else requantised to int8.

The blocks are those of ggml-common.h: a Q8_0 block is an f16 scale and 32 int8, a Q4_0 block an f16 scale and 16 bytes
whose low nibbles are values 0-15 and high nibbles values 16-31. Q4_1 and Q4_K have a fractional zero point in each
group. OpenVINO multiplies by such at half the speed of whole ones, and rounding them would add as much error again as
the quantisation made.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from server.models.engines.paged.weights import (
    GROUP,
    Float,
    Int8,
    Matrix,
    Shape,
    UInt4,
    check,
    frequencies,
    quantised,
    real,
    whole,
)
from server.models.families import FAMILIES, ROPE, unlike_header
from server.models.header import BLOCKS, Entry, Header, WeightsError

_ONCE = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
_LAYER = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
}
_ROWS = 1024
"""Rows unpacked at a time: what lies between is small beside the matrix, and fits the processor's cache."""
_LAYERS = 1 << 16


class GgufFile:
    """One GGUF file, read tensor by tensor. Raises WeightsError where it is none, broken, or not for this engine."""

    def __init__(self, path: Path, *, keep_floats: bool = False) -> None:
        self.path = path
        self.keep_floats = keep_floats
        self.header = Header.read(path)
        self._tensors = self.header.tensors
        self.family = self.header.architecture
        if self.family not in FAMILIES["gguf"]:
            raise WeightsError(f"{path}: the architecture {self.family} is not one of {', '.join(FAMILIES['gguf'])}")
        try:
            self.shape = self._shape()
            check(self.shape, gguf_name, self._size)
            self._check_kinds()
        except WeightsError as error:
            raise WeightsError(f"{path}: {error}") from None

    def kind(self, name: str, layer: int | None = None) -> GGMLQuantizationType:
        """How a tensor that is there is stored."""
        return GGMLQuantizationType(self._tensors[gguf_name(name, layer)].kind)

    # ---- the shape ----------------------------------------------------------------------------------------------

    def _shape(self) -> Shape:
        heads, hidden = self._count("attention.head_count"), self._count("embedding_length")
        head_dim = self._count("attention.key_length", hidden // max(1, heads))
        if (unlike := unlike_header(self.header)) is not None:
            raise WeightsError(unlike)
        if (embedding := self._size("token_embd.weight")) is None:
            raise WeightsError("the tensor token_embd.weight is missing")
        return Shape(
            family=self.family,
            layers=self._count("block_count"),
            heads=heads,
            kv_heads=self._count("attention.head_count_kv", heads),
            head_dim=head_dim,
            hidden=hidden,
            ffn=self._count("feed_forward_length"),
            vocabulary=embedding[0] if embedding else 0,
            context=self._count("context_length", 0),
            eps=self._real("attention.layer_norm_rms_epsilon"),
            frequencies=self._frequencies(head_dim),
            window=self._count("attention.sliding_window", 0),
        )

    def _frequencies(self, head_dim: int) -> NDArray[np.float32]:
        scaling = None
        if (kind := self.header.field("%.rope.scaling.type", "none")) not in ROPE["gguf"]:
            raise WeightsError(f"rope scaling of type {kind} is not supported; {', '.join(ROPE['gguf'])} are")
        if kind != "none":
            scaling = {"type": kind, "factor": self._real("rope.scaling.factor", 1.0)}
        if not 0 < head_dim <= _LAYERS:
            raise WeightsError(f"{self.family}.attention.key_length makes heads of {head_dim}")
        angles = frequencies(head_dim, self._real("rope.freq_base", 10000.0), scaling)
        if (factors := self._tensors.get("rope_freqs.weight")) is None:
            return angles
        # How converters store llama3's scaling: each frequency is divided by its factor.
        if factors.size != angles.shape or factors.kind != GGMLQuantizationType.F32:
            raise WeightsError(f"the tensor rope_freqs.weight should be {len(angles)} numbers of type F32")
        divisors = self._raw(factors).view(np.float32)
        if not (np.isfinite(divisors) & (divisors > 0)).all():
            raise WeightsError("the tensor rope_freqs.weight holds values that divide nothing")
        return angles / divisors

    def _count(self, key: str, default: int | None = None) -> int:
        value = self.header.field(f"%.{key}", default)
        if isinstance(value, list) and value and all(each == value[0] for each in value):
            value = value[0]  # one for each layer, all alike
        return whole(f"{self.family}.{key}", value)

    def _real(self, key: str, default: float | None = None) -> float:
        return real(f"{self.family}.{key}", self.header.field(f"%.{key}", default))

    def _size(self, name: str) -> tuple[int, ...] | None:
        found = self._tensors.get(name)
        return None if found is None else found.size

    def _check_kinds(self) -> None:
        """See that gguf unpacks each type. Asks it with one block of zeros, for it keeps no list."""
        for kind, tensor in {tensor.kind: tensor for tensor in self._tensors.values()}.items():
            if kind not in BLOCKS:
                raise WeightsError(f"the tensor {tensor.name} is of type {kind}, which is not known here")
            known = GGMLQuantizationType(kind)
            try:
                dequantize(np.zeros((1, BLOCKS[kind][1]), np.uint8), known)
            except NotImplementedError:
                raise WeightsError(f"the tensor {tensor.name} is of type {known.name}, which is not read") from None

    # ---- tensors ------------------------------------------------------------------------------------------------

    def has(self, name: str, layer: int | None = None) -> bool:
        return gguf_name(name, layer) in self._tensors

    def vector(self, name: str, layer: int | None = None) -> NDArray[np.float32]:
        return self._ordered(name, self._floats(self._tensor(name, layer)))

    def matrix(self, name: str, layer: int | None = None) -> Matrix:
        tensor = self._tensor(name, layer)
        match tensor.kind:
            case GGMLQuantizationType.Q8_0:
                values, scales = self._blocks(tensor, 32)
                return Int8(self._ordered(name, values.view(np.int8)), self._ordered(name, scales))
            case GGMLQuantizationType.Q4_0:
                packed, scales = self._blocks(tensor, 16)
                return UInt4(self._ordered(name, packed), self._ordered(name, scales))
        floats = self._ordered(name, self._floats(tensor))
        return Float(floats) if self.keep_floats else quantised(floats)

    def _tensor(self, name: str, layer: int | None) -> Entry:
        full = gguf_name(name, layer)
        if full not in self._tensors:
            raise WeightsError(f"{self.path}: the tensor {full} is missing")
        return self._tensors[full]

    def _raw(self, tensor: Entry) -> NDArray[np.uint8]:
        """Its bytes. Read rather than mapped: pages of a mapping would count as memory beside what is made of them."""
        raw = np.fromfile(self.path, np.uint8, tensor.bytes, offset=tensor.start)
        if len(raw) != tensor.bytes:
            raise WeightsError(f"{self.path}: was cut off while it was read, in the tensor {tensor.name}")
        return raw

    def _floats(self, tensor: Entry) -> NDArray[np.float32]:
        """The tensor in its size, piece by piece through gguf's own unpacking."""
        made = np.empty(tensor.size, np.float32)
        if not made.size:
            return made
        raw, kind = self._raw(tensor), GGMLQuantizationType(tensor.kind)
        flat, raw = made.reshape(-1, tensor.size[-1]), raw.reshape(made.size // tensor.size[-1], -1)
        for start in range(0, len(flat), _ROWS):
            flat[start : start + _ROWS] = dequantize(raw[start : start + _ROWS], kind)
            self._check_numbers(tensor, flat[start : start + _ROWS])
        return made

    def _blocks(self, tensor: Entry, size: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
        """Q8_0 or Q4_0: `size` bytes of values [N, K/32, size] and scales [N, K/32, 1] of each block."""
        rows, columns = tensor.size
        groups = columns // GROUP
        blocks = self._raw(tensor).reshape(rows, groups, 2 + size)
        values = np.empty((rows, groups, size), np.uint8)
        scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16)
        self._check_numbers(tensor, scales)
        for start in range(0, rows, _ROWS):
            piece = blocks[start : start + _ROWS, :, 2:]
            if size == GROUP:
                values[start : start + _ROWS] = piece
            else:
                _consecutive(piece, values[start : start + _ROWS])
        return values, scales

    def _check_numbers(self, tensor: Entry, values: NDArray[Any]) -> None:
        if not np.isfinite(values).all():
            raise WeightsError(f"{self.path}: corrupt: the tensor {tensor.name} holds values that are not numbers")

    def _ordered(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        """Llama's q and k rows are stored with the two halves of each head interleaved; undone here."""
        if self.family != "llama" or name.partition(".")[0] not in ("q", "k"):
            return rows
        heads = self.shape.heads if name.startswith("q") else self.shape.kv_heads
        size = rows.shape[0] // heads
        paired = rows.reshape(heads, size // 2, 2, *rows.shape[1:])
        return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(rows.shape)


def gguf_name(name: str, layer: int | None) -> str:
    """What GGUF files call a tensor of `weights.tensors`."""
    stem, _, kind = name.partition(".")
    return f"{_ONCE[stem] if layer is None else f'blk.{layer}.{_LAYER[stem]}'}.{kind or 'weight'}"


def _consecutive(nibbles: NDArray[np.uint8], into: NDArray[np.uint8]) -> None:
    """Q4_0's bytes [..., 16] (value j low, value j+16 high) as pairs of neighbours, low nibble first."""
    pairs = np.ascontiguousarray(nibbles).view(np.uint16)
    # A pair of bytes holds the values 2i, 2i+1 in its low nibbles, 2i+16, 2i+17 in its high ones.
    np.bitwise_or(pairs & 0x0F, (pairs >> 4) & 0xF0, out=into[..., :8], casting="unsafe")
    np.bitwise_or((pairs >> 4) & 0x0F, (pairs >> 8) & 0xF0, out=into[..., 8:], casting="unsafe")
