"""Vectors in memory once more in 8 bits, which tell of nearly all that they are not among the nearest. Knows no table.

An exact search reads these, a quarter of the memory, and compares in full only what they leave: a product of two
vectors differs from that of their coarse forms by no more than what their roundings allow (Cauchy and Schwarz).
"""

from dataclasses import dataclass
from typing import Final

import numkong
import numpy as np
from numpy.typing import NDArray

from server.knowledge.lists import largest

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]

_MOST: Final = 127
_TOGETHER: Final = 8192
_SMALLEST: Final = np.float32(1e-12)


@dataclass(frozen=True)
class Coarse:
    """Of float32 [rows, dimension] of unit length. Row n is about `steps[n]` times its 8-bit numbers in `codes`.

    `error` is how far, at most, a row and its coarse form lie apart.
    """

    codes: numkong.PackedMatrix
    steps: Matrix
    error: float
    nbytes: int

    @property
    def rows(self) -> int:
        return len(self.steps)

    def near(self, vector: Matrix, limit: int, alive: NDArray[np.bool_] | None) -> Numbers:
        """Rows among which are the `limit` nearest to `vector`, of unit length, of those `alive`; None stands for all.

        Where not so many are alive, others come along.
        """
        codes, steps, missed = _rounded(vector[None])
        products = np.asarray(numkong.dots_packed(codes, self.codes))[0]
        cosines = products * (self.steps * steps[0])
        if alive is not None:
            cosines[~alive] = -np.inf
        # What a product in float32 is off by itself goes on top.
        apart = self.error + missed * (1 + self.error) + 2 * len(vector) * np.finfo(np.float32).eps
        bar = cosines[largest(cosines, limit)].min()
        found: Numbers = np.flatnonzero(cosines >= bar - np.float32(2 * apart))
        return found


def coarse(vectors: Matrix) -> Coarse:
    """Of float32 [rows, dimension] of unit length, at least one row. Blocks for a microsecond a row."""
    parts = [_rounded(vectors[at : at + _TOGETHER]) for at in range(0, len(vectors), _TOGETHER)]
    codes = np.concatenate([each for each, _, _ in parts])
    steps = np.concatenate([each for _, each, _ in parts])
    packed = numkong.dots_pack(codes, "int8")
    return Coarse(packed, steps, max(missed for _, _, missed in parts), packed.nbytes + steps.nbytes)


def _rounded(vectors: Matrix) -> tuple[NDArray[np.int8], Matrix, float]:
    """Numbers in 8 bits, what one of them stands for in each row, and the farthest that a row lies from its own."""
    steps = np.maximum(np.abs(vectors).max(axis=1), _SMALLEST) / np.float32(_MOST)
    rounded = np.rint(vectors / steps[:, None])
    missed = np.linalg.norm(vectors - rounded * steps[:, None], axis=1).max()
    return rounded.astype(np.int8), steps, float(missed)
