"""Rounding to ggml's blocks so that what a matrix makes of real inputs stays the same.

GPTQ (Frantar et al., arXiv 2210.17323, algorithm 1) in the blocks that GGUF files have: llama.cpp's own code searches
the scales, columns weighted by the squares of their inputs, and each column's rounding error is then made good by the
columns still to come, those that matter most first. In numpy, so torch is not needed.
"""

from collections.abc import Sequence

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from server.models.quantization.codes import Layout, layout
from server.models.quantization.fault import QuantizeError
from server.models.quantization.ggml import Quantiser

Floats = NDArray[np.float32]

_TOGETHER = 128
"""Columns whose errors reach the columns behind them at once."""
_TEXTS = 8
"""Texts whose inputs are multiplied at once."""
_DAMPING = (0.02, 0.1, 1.0)
"""Of the mean of the Hessian's diagonal, added to it: more where that does not do."""


class Seen:
    """What a matrix reads of a text, as far as rounding asks: the mean of x x^T over its inputs, the Hessian."""

    def __init__(self, inputs: Sequence[Floats]) -> None:
        """`inputs` [tokens, K] of each text. Raises QuantizeError where they are no numbers."""
        columns = inputs[0].shape[1]
        total = np.zeros((columns, columns), np.float32)
        for start in range(0, len(inputs), _TEXTS):
            # numpy computes half of a product of a matrix with itself.
            some = np.concatenate(inputs[start : start + _TEXTS])
            total += some.T @ some
        hessian: Floats = total / np.float32(sum(map(len, inputs)))
        squares: Floats = np.diagonal(hessian).copy()
        mean = squares.mean()
        if not np.isfinite(mean):
            raise QuantizeError("what the model makes of the calibration text are no numbers")
        self.order = np.argsort(-squares, kind="stable")
        """The inputs, those that matter most first."""
        self.importance: Floats = squares + np.float32(_DAMPING[0] * mean or 1.0)
        """The mean square of each input, and a little for those that this text happens not to need."""
        self.factor = _inverse_factor(hessian[self.order][:, self.order])
        """The upper Cholesky factor of the inverse of the damped Hessian, its inputs in that order."""


def _inverse_factor(hessian: Floats) -> Floats:
    """The upper Cholesky factor of the inverse, which is all of the inverse that rounding asks for."""
    damped = hessian.astype(np.float64)
    diagonal = np.arange(len(damped))
    squares = damped[diagonal, diagonal]
    mean = float(squares.mean())
    for share in _DAMPING:
        # An input that is never there has a square of 0, which the damping makes good too.
        damped[diagonal, diagonal] = squares + (share * mean or 1.0)
        try:
            # H = U U^T for an upper U, which is a Cholesky factor seen from the last row; so H^-1 = U^-T U^-1.
            lower = np.linalg.cholesky(damped[::-1, ::-1]).astype(np.float64, copy=False)
            return np.ascontiguousarray(_lower_inverse(lower)[::-1, ::-1], np.float32)
        except np.linalg.LinAlgError:
            continue
    raise QuantizeError("the inputs that the calibration text makes cannot be fitted to")


def _lower_inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of a lower triangular matrix, by halves: a sixth of the work of the inverse of any matrix."""
    size = len(matrix)
    if size <= _TOGETHER:
        return np.tril(np.linalg.inv(matrix))
    half = size // 2
    made = np.zeros_like(matrix)
    made[:half, :half], made[half:, half:] = _lower_inverse(matrix[:half, :half]), _lower_inverse(matrix[half:, half:])
    made[half:, :half] = -made[half:, half:] @ (matrix[half:, :half] @ made[:half, :half])
    return made


def rounded(weights: Floats, kind: GGMLQuantizationType, seen: Seen, quantiser: Quantiser) -> NDArray[np.uint8]:
    """Blocks [N, bytes] of a matrix [N, K]; one whose codes are not known here is weighted, and not compensated."""
    blocks = quantiser.rows(weights, kind, seen.importance)
    placed = layout(kind)
    if placed is None:
        return blocks
    scale, offset = placed.grid(blocks)
    left = weights[:, seen.order]
    codes = np.empty(weights.shape, np.uint8)
    for start in range(0, weights.shape[1], _TOGETHER):
        at = slice(start, start + _TOGETHER)
        places, rest = seen.order[at], seen.factor[at, start + _TOGETHER :]
        codes[:, places], errors = _compensated(
            left[:, at], scale[:, places], offset[:, places], seen.factor[at, at], placed
        )
        left[:, start + _TOGETHER :] -= errors @ rest
    return placed.with_codes(blocks, codes)


def _compensated(
    columns: Floats, scale: Floats, offset: Floats, factor: Floats, placed: Layout
) -> tuple[NDArray[np.uint8], Floats]:
    """The codes of columns, one after another, and their errors over the factor's diagonal."""
    # Columns are worked on as rows, which lie together.
    left, scale, offset = (np.ascontiguousarray(each.T) for each in (columns, scale, offset))
    steps = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
    codes, errors = np.empty(left.shape, np.uint8), np.empty_like(left)
    for at, column in enumerate(left):
        codes[at] = placed.nearest((column - offset[at]) * steps[at])
        errors[at] = (column - placed.levels[codes[at]] * scale[at] - offset[at]) / factor[at, at]
        left[at + 1 :] -= factor[at, at + 1 :, None] * errors[at]
    return codes.T, errors.T
