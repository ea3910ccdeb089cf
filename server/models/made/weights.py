"""Random weights that behave like a model's: seeded by tensor name, so that every format of a model holds the same."""

import zlib
from typing import Protocol

import gguf
import numpy as np
from numpy.typing import NDArray

from server.models.made.shapes import Shape, Tensor

Floats = NDArray[np.float32]

# Standard deviations, times 1 / sqrt(columns); 1, for all others, keeps the size of what goes through.
_SPREAD = {
    # Attention prefers some positions, so that wrong positions show.
    "q_proj.weight": 2.0,
    "k_proj.weight": 2.0,
    # Layers outweigh the embedding: with the two tied, the likeliest token would always be the last one again.
    "o_proj.weight": 4.0,
    "down_proj.weight": 4.0,
    # Some tokens stand out from the others.
    "embed_tokens.weight": 4.0,
    "lm_head.weight": 4.0,
}
_BLOCK = 32
"""Weights that share a scale in Q8_0 and Q4_0."""


class Weights(Protocol):
    """Where the values of a model come from."""

    def values(self, tensor: Tensor) -> Floats:
        """The tensor as Hugging Face folders hold it, of the tensor's shape."""

    def blocks(self, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> NDArray[np.uint8] | None:
        """The matrix already quantised, rows by bytes; None where `values` are to be quantised."""


class Random:
    """Normal weights; rows of special tokens are small and those of unused ones zero, so that neither is ever likely.

    `quantised` draws Q8_0 and Q4_0 blocks instead of floats: the only fast way to a model of real size.
    """

    def __init__(self, shape: Shape, seed: int, special: int, used: int, *, quantised: bool) -> None:
        """Token ids from `special` on are special, those from `used` on unused."""
        self._seed = seed
        self._quantised = quantised
        self._rows = np.ones(shape.vocabulary, np.float32)
        self._rows[special:used] = 0.25
        self._rows[used:] = 0.0

    def values(self, tensor: Tensor) -> Floats:
        drawn = self._generator(tensor).standard_normal(tensor.shape, np.float32)
        if tensor.part.endswith("norm.weight"):
            return 1.0 + 0.1 * drawn
        if tensor.part.endswith(".bias"):
            return 0.3 * drawn
        drawn *= _deviation(tensor)
        if tensor.part in ("embed_tokens.weight", "lm_head.weight"):
            drawn *= self._rows[:, None]
        return drawn

    def blocks(self, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> NDArray[np.uint8] | None:
        if not self._quantised:
            return None
        rows, columns = tensor.shape
        size = gguf.GGML_QUANT_SIZES[kind][1]
        # Uniform whole numbers: -128 to 127 in Q8_0, -8 to 7 in Q4_0.
        steps = 256 if kind == gguf.GGMLQuantizationType.Q8_0 else 16
        scale = _deviation(tensor) / np.sqrt((steps**2 - 1) / 12)
        generator = self._generator(tensor)
        count = rows * columns // _BLOCK
        drawn = np.frombuffer(generator.bytes(count * size), np.uint8).reshape(rows, columns // _BLOCK, size).copy()
        scales = scale * generator.uniform(0.75, 1.25, (rows, columns // _BLOCK, 1))
        if tensor.part in ("embed_tokens.weight", "lm_head.weight"):
            scales *= self._rows[:, None, None]
        drawn[..., :2] = scales.astype("<f2").view(np.uint8)  # both formats begin a block with its scale
        return drawn.reshape(rows, -1)

    def _generator(self, tensor: Tensor) -> np.random.Generator:
        return np.random.default_rng([self._seed, zlib.crc32(tensor.name.encode())])


def _deviation(tensor: Tensor) -> float:
    return float(_SPREAD.get(tensor.part, 1.0) / np.sqrt(tensor.shape[1]))
