"""The arithmetic of the check: what a GPU's memory allows, and how far two answers are apart. Imports nothing heavy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CACHE_BITS = {"auto": 16.0, "bf16": 16.0, "fp16": 16.0, "f32": 32.0, "q8": 8.5, "q6": 6.5, "q4": 4.5}
"""What a key or a value takes in each cache; the quantised ones have a scale of 16 bits for 32 values."""


@dataclass(frozen=True)
class Size:
    """A llama's sizes; `group` weights share a scale of 16 bits and a zero point of 4, and the head is 16-bit."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    vocabulary: int
    group: int = 128

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def matrices(self) -> int:
        """Weights in the layers."""
        keys = self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * self.hidden + 2 * keys + 3 * self.ffn)

    @property
    def read_bytes(self) -> float:
        """What of a 4-bit model one step reads, however many streams it serves: all but the embedding."""
        return self.matrices * (4 + 20 / self.group) / 8 + 2 * self.vocabulary * self.hidden

    def cache_bytes(self, cache: str) -> float:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim * CACHE_BITS[cache] / 8


def limit(size: Size, bandwidth: float, streams: int, context: float, cache: str) -> float:
    """Tokens a second of `streams` together when nothing but reading memory at `bandwidth` (bytes/s) took time.

    `context` is how many tokens each stream looks back on, on average. The memory-bound side of the roofline model
    (Williams, Waterman, Patterson 2009).
    """
    step = size.read_bytes + streams * context * size.cache_bytes(cache)
    return streams * bandwidth / step


def relative_error(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The norm of the difference over the norm of what was wanted."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def agreement(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The share of rows with the same largest entry."""
    return float(np.mean(found.argmax(-1) == wanted.argmax(-1)))


def same_tokens(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float:
    """The share of places where answers have the same token, over the longer of each two."""
    places = sum(max(len(a), len(b)) for a, b in zip(one, other, strict=True))
    same = sum(x == y for a, b in zip(one, other, strict=True) for x, y in zip(a, b, strict=False))
    return same / places if places else 0.0
