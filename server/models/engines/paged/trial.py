"""The start-up check of the runtime: a small decoder over pages beside the same arithmetic in numpy.

Paged attention is a private operation of OpenVINO, so nothing but this says that a release still computes it as ours
expects. It takes a tenth of a second.
"""

import numpy as np
from numpy.typing import NDArray

from server.models.engines.paged.runtime import ROUNDED, Decoder, Span
from server.models.engines.paged.weights import Float, Matrix, Shape, frequencies, quantised

_TOLERANCE = 1e-3
_NEAR = 0.99
"""The least cosine of logits to exact ones where weights and activations have 8 bits."""


class _Small:
    """Random weights: two layers, grouped queries, norms of queries and keys."""

    def __init__(self) -> None:
        self.shape = Shape("qwen3", 2, 4, 2, 32, 64, 96, 96, 256, 1e-6, frequencies(32, 10000.0))
        random = np.random.default_rng(0)
        sizes = {"q": (128, 64), "k": (64, 64), "v": (64, 64), "o": (64, 128), "gate": (96, 64), "up": (96, 64)}
        sizes |= {"down": (64, 96), "embedding": (96, 64), "head": (96, 64)}
        self._matrices = {
            (name, layer): random.normal(0, 0.3, size).astype(np.float32)
            for name, size in sizes.items()
            for layer in ((None,) if name in ("embedding", "head") else (0, 1))
        }
        self._norm = random.uniform(0.5, 1.5, 64).astype(np.float32)

    def has(self, name: str, layer: int | None = None) -> bool:
        return name in ("q_norm", "k_norm") or (name, layer) in self._matrices

    def vector(self, name: str, layer: int | None = None) -> NDArray[np.float32]:
        return self._norm[:32] if name in ("q_norm", "k_norm") else self._norm

    def matrix(self, name: str, layer: int | None = None) -> Matrix:
        return Float(self._matrices[name, layer])

    # ---- the same in numpy --------------------------------------------------------------------------------------

    def logits(self, tokens: list[int]) -> NDArray[np.float32]:
        """Of the last token."""
        state = self._matrices["embedding", None][tokens]
        for layer in range(self.shape.layers):
            state = state + self._attended(self._normed(state), layer)
            normed = self._normed(state)
            gate = normed @ self._matrices["gate", layer].T
            gate = gate / (1 + np.exp(-gate)) * (normed @ self._matrices["up", layer].T)
            state = state + gate @ self._matrices["down", layer].T
        last = self._normed(state[-1:]) @ self._matrices["head", None].T
        return np.asarray(last[0], np.float32)

    def _normed(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        scale = np.sqrt((state**2).mean(-1, keepdims=True) + self.shape.eps)
        return np.asarray(state / scale * self._norm[: state.shape[-1]], np.float32)

    def _attended(self, state: NDArray[np.float32], layer: int) -> NDArray[np.float32]:
        shape, count = self.shape, len(state)
        q, k, v = (
            (state @ self._matrices[name, layer].T).reshape(count, heads, shape.head_dim).swapaxes(0, 1)
            for name, heads in (("q", shape.heads), ("k", shape.kv_heads), ("v", shape.kv_heads))
        )
        q, k = self._rotated(self._normed(q)), self._rotated(self._normed(k))
        each = shape.heads // shape.kv_heads
        k, v = np.repeat(k, each, 0), np.repeat(v, each, 0)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(shape.head_dim)
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = shares / shares.sum(-1, keepdims=True) @ v
        joined = mixed.swapaxes(0, 1).reshape(count, shape.heads * shape.head_dim)
        return np.asarray(joined @ self._matrices["o", layer].T, np.float32)

    def _rotated(self, heads: NDArray[np.float32]) -> NDArray[np.float32]:
        angles = np.arange(heads.shape[1])[:, None] * self.shape.frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = np.split(heads, 2, -1)
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1).astype(np.float32)


def run() -> None:
    """Raises RuntimeError where the runtime's result is another than numpy's."""
    small = _Small()
    decoder = Decoder(small, tokens=96, precision="f32", threads=1)
    tokens = [int(token) for token in np.random.default_rng(1).integers(0, 96, 41)]
    pages = list(range(decoder.pages))[::-1]
    # Two pieces on pages in another order than memory, beside a second sequence: all that paging is for.
    decoder.compute([Span(tokens[:36], 0, pages, 0)])
    other = Span(tokens[:3], 0, pages[2:], 1)
    found = decoder.compute([Span(tokens[36:], 36, pages[:2], 1), other])
    for logits, asked in zip(found, (tokens, tokens[:3]), strict=True):
        apart = float(np.abs(logits - small.logits(asked)).max())
        if not apart <= _TOLERANCE:
            raise RuntimeError(
                f"this release of OpenVINO computes paged attention differently (logits {apart:.3g} from numpy's);"
                " install the version that requirements.lock names"
            )


def rounds() -> bool:
    """Whether the runtime multiplies quantised weights with activations of 8 bits here, as near as those can be.

    Where it has no kernel for a processor it fails in the first step, or computes nothing.
    """

    class Quantised(_Small):
        def matrix(self, name: str, layer: int | None = None) -> Matrix:
            return quantised(self._matrices[name, layer])

    small = Quantised()
    decoder = Decoder(small, tokens=96, precision=ROUNDED, threads=1)
    tokens = list(range(40))
    try:
        [found] = decoder.compute([Span(tokens, 0, list(range(decoder.pages)), 1)])
    except (RuntimeError, ValueError):
        return False
    exact = small.logits(tokens)
    return bool(found @ exact > _NEAR * np.linalg.norm(found) * np.linalg.norm(exact))
