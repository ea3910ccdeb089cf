"""The codes in ggml's blocks: what each stands for, and how they are put there. Scales stay as they are.

Layouts: ggml-common.h and dequantize_row_* of ggml-quants.c. A value is scale x level + offset, both its block's (or
sub-block's) own; a code is the number of its level, and levels are whole numbers from 0 on but for the type iq4_nl.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from server.models.header import BLOCKS

Bytes = NDArray[np.uint8]
Codes = NDArray[np.uint8]
"""[N, K], in the order of the weights."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """`levels` ascending. `put` writes codes [B, block] into blocks [B, bytes]."""

    kind: GGMLQuantizationType
    levels: Floats
    put: Callable[[Bytes, Codes], None]

    @property
    def block(self) -> int:
        """Weights of a block."""
        return BLOCKS[self.kind][0]

    def grid(self, blocks: Bytes) -> tuple[Floats, Floats]:
        """Scale and offset [N, K] of every weight in rows of blocks [N, bytes]."""
        first, second = (self._filled(blocks, code) for code in (0, 1))
        scale = (second - first) / (self.levels[1] - self.levels[0])
        return scale, first - scale * self.levels[0]

    def nearest(self, values: Floats) -> Codes:
        """The codes of the levels that values, less their offset and over their scale, are nearest to."""
        if self.levels[0] == 0:
            return np.clip(np.rint(values), 0, len(self.levels) - 1).astype(np.uint8)
        return np.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, values).astype(np.uint8)

    def with_codes(self, blocks: Bytes, codes: Codes) -> Bytes:
        """The same blocks with other codes."""
        made = blocks.reshape(-1, BLOCKS[self.kind][1]).copy()
        self.put(made, codes.reshape(-1, self.block))
        return made.reshape(blocks.shape)

    def _filled(self, blocks: Bytes, code: int) -> Floats:
        columns = blocks.shape[1] // BLOCKS[self.kind][1] * self.block
        same = self.with_codes(blocks, np.full((len(blocks), columns), code, np.uint8))
        found: Floats = gguf.dequantize(same, self.kind)
        return found


def layout(kind: GGMLQuantizationType) -> Layout | None:
    """None for a type that is not known here."""
    return _LAYOUTS.get(kind)


def _nibbles(codes: Codes, half: int) -> Bytes:
    """The low four bits of codes, `half` of them in low nibbles, the next `half` in high ones, and so on."""
    parts = (codes & 15).reshape(len(codes), -1, 2, half)
    joined: Bytes = (parts[:, :, 0] | parts[:, :, 1] << 4).astype(np.uint8)
    return joined.reshape(len(codes), -1)


def _four(at: int) -> Callable[[Bytes, Codes], None]:
    def put(blocks: Bytes, codes: Codes) -> None:
        blocks[:, at : at + 16] = _nibbles(codes, 16)

    return put


def _five(at: int) -> Callable[[Bytes, Codes], None]:
    """The fifth bits of 32 codes are a word in front of their nibbles."""

    def put(blocks: Bytes, codes: Codes) -> None:
        blocks[:, at : at + 4] = np.packbits(codes >> 4, axis=1, bitorder="little")
        blocks[:, at + 4 : at + 20] = _nibbles(codes, 16)

    return put


def _four_k(blocks: Bytes, codes: Codes) -> None:
    blocks[:, 16:144] = _nibbles(codes, 32)


def _five_k(blocks: Bytes, codes: Codes) -> None:
    """The fifth bits of the eight sub-blocks are the eight bits of 32 bytes."""
    fifth = (codes >> 4).reshape(-1, 8, 32)
    blocks[:, 16:48] = np.packbits(fifth, axis=1, bitorder="little")[:, 0]
    blocks[:, 48:176] = _nibbles(codes, 32)


def _six_k(blocks: Bytes, codes: Codes) -> None:
    """Of each 128 codes four times 32: low nibbles of the first two, then high ones; two more bits of all four."""
    parts = codes.reshape(-1, 2, 4, 32)
    low = parts & 15
    blocks[:, :128] = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], 2).reshape(
        -1, 128
    )
    high = parts >> 4
    blocks[:, 128:192] = (high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6).reshape(-1, 64)


def _even(count: int) -> Floats:
    return np.arange(count, dtype=np.float32)


_LAYOUTS = {
    each.kind: each
    for each in (
        Layout(GGMLQuantizationType.Q4_0, _even(16), _four(2)),
        Layout(GGMLQuantizationType.Q4_1, _even(16), _four(4)),
        Layout(GGMLQuantizationType.IQ4_NL, np.array(gguf.quants.IQ4_NL.kvalues, np.float32), _four(2)),
        Layout(GGMLQuantizationType.Q5_0, _even(32), _five(2)),
        Layout(GGMLQuantizationType.Q5_1, _even(32), _five(4)),
        Layout(GGMLQuantizationType.Q4_K, _even(16), _four_k),
        Layout(GGMLQuantizationType.Q5_K, _even(32), _five_k),
        Layout(GGMLQuantizationType.Q6_K, _even(64), _six_k),
    )
}
