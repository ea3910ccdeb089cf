"""Steps of few tokens by compiled code alone (`compiled/decoder.cpp`), beside the graph and on its pages.

Running a graph of hundreds of nodes costs a step of one token as much as a third of its multiplications. Prompts go by
the graph, whose attention of many tokens by many is the better.
"""

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.models.engines.paged.kernel import Kernel, Packed
from server.models.engines.paged.packs import Packs
from server.models.engines.paged.span import Span
from server.models.engines.paged.weights import GROUP, Float, Int8, Matrix, UInt4, Weights, floats

PAGE = 32
"""Positions of a page, in the compiled code too."""
Cells = NDArray[Any]
"""A cache of keys or values of one layer, [pages, kv_heads, 32, head_dim], bf16 as u16 or f32."""


class _Linear(ctypes.Structure):
    _fields_ = (
        ("values", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("bits", ctypes.c_int64),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, _Linear) for name in ("qkv", "o", "gate", "down")),
        *((name, ctypes.c_void_p) for name in ("attention_norm", "ffn_norm", "q_norm", "k_norm", "bias")),
        *((name, ctypes.c_void_p) for name in ("keys", "values")),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("layers", "hidden", "heads", "kv_heads", "dim", "ffn", "window")),
        *((name, ctypes.c_int64) for name in ("cell", "registers", "threads")),
        ("eps", ctypes.c_double),
        ("layer", ctypes.c_void_p),
        ("head", _Linear),
        ("norm", ctypes.c_void_p),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("tokens", "sequences", "sampled")),
        *((name, ctypes.c_void_p) for name in ("past", "begins", "pages", "page_begins", "cosines", "sines")),
        *((name, ctypes.c_void_p) for name in ("rows", "state", "logits")),
    )


class CompiledDecoder:
    """One decoder's weights and caches as the compiled code has them. Not re-entrant; the interpreter is free while it
    computes."""

    def __init__(
        self,
        weights: Weights,
        packs: Packs,
        embedding: Matrix,
        keys: Sequence[Cells],
        values: Sequence[Cells],
        threads: int,
    ) -> None:
        """`weights` have to be such as `possible` says, and packed; rows of `embedding` [vocabulary, hidden] are looked
        up. `keys` and `values` are the caches of each layer. Raises MemoryError."""
        shape, kernel = weights.shape, packs.kernel
        self._shape, self._kernel, self._embedding = shape, kernel, embedding
        self._held = (keys, values)
        self._logits = np.empty((0, shape.vocabulary), np.float32)
        self._frequencies = np.asarray(shape.frequencies, np.float32)
        self._layers = (_Layer * shape.layers)()
        for at in range(shape.layers):
            self._layers[at] = _layer(weights, packs, at, keys[at], values[at])
        self._model = _Model(
            *(shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.ffn, shape.window),
            *(keys[0].itemsize, kernel.registers, threads, shape.eps),
            ctypes.addressof(self._layers),
            _linear(packs.packed(("head",))),
            kernel.vector(weights.vector("norm")).ctypes.data,
        )
        library = kernel.library
        library.hearth_decoder.restype = ctypes.c_void_p
        made = library.hearth_decoder(ctypes.byref(self._model))
        if not made:
            raise MemoryError("not even the threads of a decoder can be had")
        self._decoder = ctypes.c_void_p(made)
        self._compute = library.hearth_decoder_compute
        weakref.finalize(self, library.hearth_decoder_free, self._decoder)

    def compute(self, spans: Sequence[Span]) -> NDArray[np.float32]:
        """Logits f32 [sum of wanted, vocabulary], in the order of the spans; valid until the next call.

        Raises MemoryError.
        """
        tokens = np.array([token for span in spans for token in span.tokens], np.int64)
        begins = np.array([0, *accumulate(len(span.tokens) for span in spans)], np.int32)
        positions = np.concatenate([np.arange(span.past, span.past + len(span.tokens)) for span in spans])
        angles = positions.astype(np.float32)[:, None] * self._frequencies
        used = [span.pages[: -(-(span.past + len(span.tokens)) // PAGE)] for span in spans]
        rows = [at for end, span in zip(begins[1:], spans, strict=True) for at in range(end - span.wanted, end)]
        logits = self._room(len(rows))
        arrays: dict[str, NDArray[Any]] = {
            "past": np.array([span.past for span in spans], np.int32),
            "begins": begins,
            "pages": np.array([page for pages in used for page in pages], np.int32),
            "page_begins": np.array([0, *accumulate(len(pages) for pages in used)], np.int32),
            "cosines": np.cos(angles),
            "sines": np.sin(angles),
            "rows": np.array(rows, np.int64),
            "state": self._embedded(tokens),
            "logits": logits,
        }
        addresses = {name: array.ctypes.data for name, array in arrays.items()}
        if not self._compute(self._decoder, ctypes.byref(_Step(len(tokens), len(spans), len(rows), **addresses))):
            raise MemoryError(f"a step of {len(tokens)} tokens does not fit into memory")
        return logits

    def _room(self, rows: int) -> NDArray[np.float32]:
        """Memory that is new has to be brought in page by page, which takes longer than to choose from the logits."""
        if len(self._logits) < rows:
            self._logits = np.empty((rows, self._shape.vocabulary), np.float32)
        return self._logits[:rows]

    def _embedded(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        match self._embedding:
            case Float(values):
                rows: Matrix = Float(values[tokens])
            case Int8(values, scales):
                rows = Int8(values[tokens], scales[tokens])
            case UInt4(packed, scales):
                rows = UInt4(packed[tokens], scales[tokens])
        return np.ascontiguousarray(floats(rows), np.float32)


def possible(weights: Weights, packs: Packs) -> bool:
    """Whether the compiled code has all that this decoder needs, once its graph is built: whole groups in a head, no
    biases but those of queries, keys and values, and no matrix that is not packed."""
    shape = weights.shape
    if shape.head_dim % GROUP or not shape.layers or packs.packed(("head",)) is None:
        return False
    for layer in range(shape.layers):
        if any(weights.has(f"{name}.bias", layer) for name in ("o", "gate", "up", "down")):
            return False
        found = (packs.packed(names, layer) for names in (("q", "k", "v"), ("o",), ("down",)))
        if None in (*found, packs.packed(("gate", "up"), layer, gated=True)):
            return False
    return True


def _layer(weights: Weights, packs: Packs, layer: int, keys: Cells, values: Cells) -> _Layer:
    kernel, shape = packs.kernel, weights.shape

    def vector(name: str) -> int | None:
        return kernel.vector(weights.vector(name, layer)).ctypes.data if weights.has(name, layer) else None

    return _Layer(
        qkv=_linear(packs.packed(("q", "k", "v"), layer)),
        o=_linear(packs.packed(("o",), layer)),
        gate=_linear(packs.packed(("gate", "up"), layer, gated=True)),
        down=_linear(packs.packed(("down",), layer)),
        attention_norm=kernel.vector(weights.vector("attention_norm", layer)).ctypes.data,
        ffn_norm=kernel.vector(weights.vector("ffn_norm", layer)).ctypes.data,
        q_norm=vector("q_norm"),
        k_norm=vector("k_norm"),
        bias=_bias(weights, kernel, layer, {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}),
        keys=keys.ctypes.data,
        values=values.ctypes.data,
    )


def _bias(weights: Weights, kernel: Kernel, layer: int, heads: Mapping[str, int]) -> int | None:
    """Where the biases of queries, keys and values lie, one after another; None where there are none."""
    if not any(weights.has(f"{name}.bias", layer) for name in heads):
        return None
    parts = [
        weights.vector(f"{name}.bias", layer)
        if weights.has(f"{name}.bias", layer)
        else np.zeros(count * weights.shape.head_dim, np.float32)
        for name, count in heads.items()
    ]
    return kernel.vector(np.concatenate(parts)).ctypes.data


def _linear(packed: Packed | None) -> _Linear:
    if packed is None:
        raise ValueError("a matrix is not packed")
    return _Linear(packed.values.ctypes.data, packed.scales.ctypes.data, packed.columns, packed.width, packed.bits)
