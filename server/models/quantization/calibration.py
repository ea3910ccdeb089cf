"""A decoder of the llama family in plain numpy, layer by layer: what each of its matrices reads of a text.

What a weight does depends on the input it is multiplied by, so rounding is fitted to inputs. Names are GGUF's, and so
is the order of rows: a llama's queries and keys rotate neighbours, those of other families halves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.models.engines.paged.weights import Shape
from server.models.quantization.fault import QuantizeError
from server.models.quantization.originals import Original

Floats = NDArray[np.float32]

STAGES = (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))
"""Matrices with the same input, in the order in which a layer comes by them."""


_ROWS = 128
"""Rows of attention that are computed at once."""


def tensor(name: str, layer: int) -> str:
    """The full name of a layer's matrix."""
    return f"blk.{layer}.{name}.weight"


@dataclass
class Layer:
    """One layer's weights by their short names, such as attn_q, and its biases by attn_q.bias; to be replaced freely.

    Norms are under attn_norm, ffn_norm, attn_q_norm and attn_k_norm.
    """

    weights: dict[str, Floats]


class Network:
    """`shape` of what `read` gives the tensors of by their full names, None for one that the model does not have."""

    def __init__(self, shape: Shape, read: Callable[[str], Floats | None], *, neighbours: bool) -> None:
        self._shape = shape
        self._read = read
        self._neighbours = neighbours

    def layer(self, number: int) -> Layer:
        names = [name for stage in STAGES for name in stage]
        names += ["attn_norm", "ffn_norm", "attn_q_norm", "attn_k_norm"]
        found = {name: self._read(tensor(name, number)) for name in names}
        found |= {f"{name}.bias": self._read(f"blk.{number}.{name}.bias") for stage in STAGES for name in stage}
        return Layer({name: each for name, each in found.items() if each is not None})

    def stages(self, layer: Layer, states: list[Floats]) -> Iterator[tuple[tuple[str, ...], list[Floats]]]:
        """The matrices of each stage and what they read of each text [tokens, in]; at the end `states` are the layer's.

        `states` [tokens, hidden] are each text's before the layer. What is computed after a stage takes the weights
        that the layer has then, so one who replaces them sees later stages read what the replaced ones say.
        """
        read = [self._norm(each, layer.weights["attn_norm"]) for each in states]
        yield STAGES[0], read
        for at, each in enumerate(read):
            read[at] = self._attended(layer, each)
        yield STAGES[1], read
        for at, each in enumerate(read):
            states[at] = states[at] + _linear(layer, "attn_output", each)
            read[at] = self._norm(states[at], layer.weights["ffn_norm"])
        yield STAGES[2], read
        for at, each in enumerate(read):
            read[at] = _gated(layer, each)
        yield STAGES[3], read
        for at, each in enumerate(read):
            states[at] = states[at] + _linear(layer, "ffn_down", each)

    def _norm(self, values: Floats, weight: Floats) -> Floats:
        spread = np.sqrt(np.mean(np.square(values), -1, keepdims=True) + self._shape.eps)
        normed: Floats = values / spread * weight
        return normed

    def _attended(self, layer: Layer, normed: Floats) -> Floats:
        shape, count = self._shape, len(normed)
        queries = _linear(layer, "attn_q", normed).reshape(count, shape.heads, shape.head_dim)
        keys = _linear(layer, "attn_k", normed).reshape(count, shape.kv_heads, shape.head_dim)
        values = _linear(layer, "attn_v", normed).reshape(count, shape.kv_heads, shape.head_dim)
        for name in ("attn_q_norm", "attn_k_norm"):
            if name in layer.weights and name == "attn_q_norm":
                queries = self._norm(queries, layer.weights[name])
            elif name in layer.weights:
                keys = self._norm(keys, layer.weights[name])
        queries = self._rotated(queries) * np.float32(shape.head_dim**-0.5)
        keys = self._rotated(keys)
        # Queries that share a head of keys are rows of one matrix: [key heads, tokens, queries of each, width].
        shared = shape.heads // shape.kv_heads
        asking = queries.reshape(count, shape.kv_heads, shared, shape.head_dim).transpose(1, 0, 2, 3)
        asked, given = keys.transpose(1, 2, 0), values.transpose(1, 0, 2)
        mixed = np.empty((count, shape.kv_heads, shared, shape.head_dim), np.float32)
        for start in range(0, count, _ROWS):
            end = min(start + _ROWS, count)
            rows = asking[:, start:end].reshape(shape.kv_heads, -1, shape.head_dim)
            # Keys after the last of these rows are seen by none of them.
            scores = (rows @ asked[..., :end]).reshape(shape.kv_heads, -1, shared, end)
            scores += self._unseen(start, end)[:, None]
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            found = scores.reshape(shape.kv_heads, -1, end) @ given[:, :end]
            found = found.reshape(shape.kv_heads, -1, shared, shape.head_dim)
            found /= scores.sum(-1, keepdims=True)
            mixed[start:end] = found.transpose(1, 0, 2, 3)
        return mixed.reshape(count, -1)

    def _unseen(self, start: int, end: int) -> Floats:
        """To be added to the scores of rows `start` to `end` of all keys up to there: -inf where one is not seen."""
        places, keys = np.arange(start, end)[:, None], np.arange(end)[None, :]
        hidden = keys > places
        if self._shape.window:
            hidden |= keys <= places - self._shape.window
        return np.where(hidden, np.float32(-np.inf), np.float32(0))

    def _rotated(self, heads: Floats) -> Floats:
        """[tokens, heads, width], turned by their places."""
        angles = np.arange(len(heads), dtype=np.float32)[:, None] * self._shape.frequencies
        cosine, sine = np.cos(angles)[:, None].astype(np.float32), np.sin(angles)[:, None].astype(np.float32)
        made = np.empty_like(heads)
        half = self._shape.head_dim // 2
        one, two = (np.s_[..., ::2], np.s_[..., 1::2]) if self._neighbours else (np.s_[..., :half], np.s_[..., half:])
        made[one] = heads[one] * cosine - heads[two] * sine
        made[two] = heads[two] * cosine + heads[one] * sine
        return made


def _linear(layer: Layer, name: str, values: Floats) -> Floats:
    made: Floats = values @ layer.weights[name].T
    bias = layer.weights.get(f"{name}.bias")
    return made if bias is None else made + bias


def _gated(layer: Layer, normed: Floats) -> Floats:
    """SwiGLU: Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202."""
    gate = _linear(layer, "ffn_gate", normed)
    with np.errstate(over="ignore"):
        gate /= 1 + np.exp(-gate)
    gate *= _linear(layer, "ffn_up", normed)
    return gate


# ---- what it reads --------------------------------------------------------------------------------------------------

WINDOW, MOST_WINDOWS = 512, 128


@dataclass(frozen=True)
class Text:
    """Tokens that rounding is fitted to, in windows that are read each from its own beginning."""

    shape: Shape
    windows: Sequence[Sequence[int]]


def read(original: Original, text: str) -> Text:
    """`text` as the model reads it. Raises WeightsError for a model that is not computed here, QuantizeError for an
    empty text."""
    shape = original.shape()
    ids = original.vocabulary(shape.vocabulary).encode(text, parse_special=False)
    size = min(WINDOW, shape.context or WINDOW)
    windows = [ids[start : start + size] for start in range(0, len(ids), size)][:MOST_WINDOWS]
    if not windows:
        raise QuantizeError("--calibration: the text is empty")
    return Text(shape, windows)
