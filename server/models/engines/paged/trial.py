"""The start-up check of the runtime: a small decoder over pages beside the same arithmetic in numpy.

Paged attention is a private operation of OpenVINO, so nothing but this says that a release still computes it as ours
expects. It takes a tenth of a second. So does the kernel's, which another compiler made on each machine.
"""

import numpy as np
import openvino as ov
import openvino.opset16 as ops
from numpy.typing import NDArray

from server.models.engines.paged.kernel import Kernel
from server.models.engines.paged.runtime import ROUNDED, Decoder
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import (
    GROUP,
    Float,
    Int8,
    Matrix,
    Shape,
    UInt4,
    floats,
    frequencies,
    quantised,
)

_TOLERANCE = 1e-3
_ROUNDED_APART = 5e-3
"""The most that the kernel's results are from numpy's, over the largest: an activation that lies between two numbers
of 8 bits may be rounded to either."""
_FLIPPED_APART = 0.1
"""The most that this makes of logits after two layers."""
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


class _Quantised(_Small):
    def matrix(self, name: str, layer: int | None = None) -> Matrix:
        return quantised(self._matrices[name, layer])


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

    small = _Quantised()
    decoder = Decoder(small, tokens=96, precision=ROUNDED, threads=1)
    tokens = list(range(40))
    try:
        [found] = decoder.compute([Span(tokens, 0, list(range(decoder.pages)), 1)])
    except (RuntimeError, ValueError):
        return False
    exact = small.logits(tokens)
    return bool(found @ exact > _NEAR * np.linalg.norm(found) * np.linalg.norm(exact))


def multiplies(kernel: Kernel) -> None:
    """Raises RuntimeError where the kernel computes something else than numpy: both kinds of weights, rows and tiles
    that are not whole, normalisation, gate and sum."""
    random = np.random.default_rng(2)
    for kind in (Int8, UInt4):
        for rows in (1, 3, 21):
            state = random.normal(0, 1, (rows, 96)).astype(np.float32)
            for gated in (False, True):
                apart = _apart(kernel, random, kind, state, gated)
                if not apart <= _ROUNDED_APART:
                    raise RuntimeError(f"its results for {kind.__name__} are {apart:.2g} from numpy's, of the largest")


def decodes(kernel: Kernel) -> None:
    """Raises RuntimeError where the compiled decoder computes answers otherwise than the graph: several tokens of two
    sequences at once, on pages in another order than memory."""
    small = _Quantised()
    decoder = Decoder(small, tokens=96, precision=ROUNDED, threads=2, kernel=kernel)
    tokens = [int(token) for token in np.random.default_rng(1).integers(0, 96, 41)]
    pages = list(range(decoder.pages))[::-1]
    decoder.compute([Span(tokens[:30], 0, pages[:2], 0)])
    asked = [(tokens[30:], 30, pages[:2], 11), (tokens[:3], 0, pages[2:], 1)]
    graph, compiled = (decoder.compute([Span(*each, written) for each in asked]) for written in (False, True))
    apart = np.abs(graph - compiled).max(-1) / np.abs(graph).max(-1)
    # An activation between two numbers of 8 bits may be rounded to either, which only few tokens meet.
    if not (np.median(apart) <= _TOLERANCE and apart.max() <= _FLIPPED_APART):
        raise RuntimeError(f"its decoder's logits are up to {apart.max():.2g} from the graph's, of the largest")


def _apart(
    kernel: Kernel,
    random: np.random.Generator,
    kind: type[Int8 | UInt4],
    state: NDArray[np.float32],
    gated: bool,
) -> float:
    """How far its result is from numpy's at most, over the largest there is."""
    # With a gate both are as high; without, blocks of 16 rows hold the end of one and the beginning of the other.
    matrices = [_random(random, kind, count, state.shape[1]) for count in ((32, 32) if gated else (21, 40))]
    width = 32 if gated else 61
    norm = random.uniform(0.5, 1.5, state.shape[1:]).astype(np.float32)
    sum_ = random.normal(0, 1, (len(state), width)).astype(np.float32)
    inputs = [ops.parameter([-1, each.shape[1]], np.float32) for each in (state, sum_)]
    added = None if gated else inputs[1]
    packed = kernel.packed(matrices, gated=gated)
    node = kernel.product(inputs[0], packed, norm=(norm, 1e-5) if gated else None, added=added)
    used = inputs[: 1 if gated else 2]
    compiled = ov.Core().compile_model(ov.Model([ops.result(node)], used, "product"), "CPU")
    found = compiled([state, sum_][: len(used)])[0]
    if gated:
        state = state / np.sqrt((state**2).mean(-1, keepdims=True) + 1e-5) * norm
    groups = state.reshape(len(state), -1, GROUP)
    step = np.asarray(np.abs(groups).max(-1, keepdims=True) / 127, np.float32)
    expected = (np.rint(groups / step) * step).reshape(state.shape) @ np.concatenate([*map(floats, matrices)]).T
    if gated:
        gate, up = np.split(expected, 2, -1)
        expected = gate / (1 + np.exp(-gate)) * up
    else:
        expected = expected + sum_
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _random(random: np.random.Generator, kind: type[Int8 | UInt4], rows: int, columns: int) -> Int8 | UInt4:
    # Both kinds reach about one, so that a gate is not all open or shut.
    step = 0.002 if kind is Int8 else 0.02
    scales = random.uniform(step / 4, step, (rows, columns // GROUP, 1)).astype(np.float16)
    size = (rows, columns // GROUP, GROUP)
    if kind is Int8:
        return Int8(random.integers(-128, 128, size).astype(np.int8), scales)
    return UInt4(random.integers(0, 256, (*size[:2], GROUP // 2)).astype(np.uint8), scales)
