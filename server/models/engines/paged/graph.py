"""A decoder's weights as an OpenVINO graph with paged attention; knows nothing of requests.

The arithmetic is that of Llama (arXiv 2302.13971) with Qwen's biases and norms of queries and keys where the weights
have them. Two names of OpenVINO used here are private: the paged attention operation and its page layout. `trial`
compares a small model with numpy at every start, so that a release that changes them is refused, not served.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset16 as ops
from numpy.typing import NDArray
from openvino.op import _PagedAttentionExtension

from server.models.engines.paged.packs import Packs
from server.models.engines.paged.weights import Float, Int8, Matrix, UInt4, Weights, count, joined

Node = Any
"""An OpenVINO node; the package has no types for what its operations return."""
Keep = Callable[[NDArray[Any]], NDArray[Any]]
"""Gives the same values in memory that stays; see `constants`."""


@dataclass(frozen=True)
class Graph:
    """A decoder's graph, and the embedding whose rows it looks up."""

    model: ov.Model
    embedding: Matrix


def decoder(weights: Weights, keep: Keep, packs: Packs | None = None) -> Graph:
    """The graph, whose large constants are the arrays that `keep` gives for them: they have to live as long as it.

    With `packs`, whose kernel has to live as long too, quantised matrices are multiplied by that and are its own.

    Inputs, T tokens of all sequences in a row:

    input_ids i64 [T], position_ids i64 [T], past_lens i32 [sequences], subsequence_begins i32 [sequences + 1],
    block_indices i32 [pages in use], block_indices_begins i32 [sequences + 1], max_context_len i32 [],
    sampled_tokens_indices i64 [S], and key_cache.N, value_cache.N for each layer. Output: `logits` f32 [S, vocabulary].
    """
    return _Builder(weights, keep, packs).build()


class _Builder:
    def __init__(self, weights: Weights, keep: Keep, packs: Packs | None) -> None:
        self._weights = weights
        self._keep = keep
        self._packs = packs
        self._shape = weights.shape
        self._inputs: list[Node] = []

    def build(self) -> Graph:
        weights, shape = self._weights, self._shape
        ids = self._input("input_ids", [-1], np.int64)
        positions = self._input("position_ids", [-1], np.int64)
        control = [
            self._input(name, size, np.int32)
            for name, size in (
                ("past_lens", [-1]),
                ("subsequence_begins", [-1]),
                ("block_indices", [-1]),
                ("block_indices_begins", [-1]),
                ("max_context_len", []),
            )
        ]
        sampled = self._input("sampled_tokens_indices", [-1], np.int64)
        table = _kept(weights.matrix("embedding"), self._keep)
        embedding = _matrix(table)
        rotate = _rotation(positions, shape.frequencies)
        state = ops.unsqueeze(ops.gather(embedding, ids, ops.constant(np.int64(0))), _ints(1))
        for layer in range(shape.layers):
            # After the last attention only the wanted rows go on.
            state = self._layer(layer, state, rotate, control, sampled if layer == shape.layers - 1 else None)
        if not shape.layers:
            state = _rows(state, sampled)
        own = weights.matrix("head") if weights.has("head") else None
        head = table if own is None else own
        if self._packs is not None and (packed := self._packs.pack(("head",), None, [head])) is not None:
            product = self._packs.kernel.product(state, packed, norm=self._told("norm"))
        else:
            matrix = embedding if own is None else _matrix(_kept(own, self._keep))
            product = ops.matmul(self._norm(state, "norm"), matrix, False, True)
        logits = ops.reshape(product, _ints(-1, shape.vocabulary), False)
        logits.output(0).set_names({"logits"})
        return Graph(ov.Model([ops.result(logits)], self._inputs, "decoder"), table)

    def _input(self, name: str, size: Sequence[int], kind: Any) -> Node:
        made = ops.parameter(list(size), kind, name)
        made.output(0).set_names({name})
        made.set_friendly_name(name)
        self._inputs.append(made)
        return made

    def _layer(
        self, layer: int, state: Node, rotate: Callable[[Node], Node], control: list[Node], kept: Node | None
    ) -> Node:
        shape = self._shape
        q, k, v = self._linears(state, ("q", "k", "v"), layer, norm="attention_norm")
        queries = rotate(self._heads(q, "q", shape.heads, layer))
        keys = rotate(self._heads(k, "k", shape.kv_heads, layer))
        attended = self._attention(layer, queries, keys, self._heads(v, "v", shape.kv_heads, layer), control)
        if kept is not None:
            attended, state = _rows(attended, kept), _rows(state, kept)
        state = self._added(state, attended, "o", layer)
        return self._added(state, self._gated(state, layer), "down", layer)

    def _gated(self, state: Node, layer: int) -> Node:
        """What the feed-forward network's gate lets through: silu(gate) * up of the normalised state."""
        names = ("gate", "up")
        parts = [self._weights.matrix(name, layer) for name in names]
        if self._packs is not None and not any(self._weights.has(f"{name}.bias", layer) for name in names):
            packed = self._packs.pack(names, layer, parts, gated=True)
            if packed is not None:
                return self._packs.kernel.product(state, packed, norm=self._told("ffn_norm", layer))
        gate, up = self._linears(state, names, layer, norm="ffn_norm")
        return ops.multiply(ops.swish(gate), up)

    def _added(self, state: Node, update: Node, name: str, layer: int) -> Node:
        """The state with the projection of an update added to it."""
        matrix, bias = self._weights.matrix(name, layer), self._bias(name, layer)
        if self._packs is not None and (packed := self._packs.pack((name,), layer, [matrix])) is not None:
            return _biased(self._packs.kernel.product(update, packed, added=state), bias)
        return ops.add(state, _biased(self._multiplied(update, matrix), bias))

    def _norm(self, state: Node, name: str, layer: int | None = None) -> Node:
        mean = ops.reduce_mean(ops.power(state, _float(2.0)), ops.constant(np.array([-1], np.int32)), True)
        scaled = ops.multiply(state, ops.divide(_float(1.0), ops.sqrt(ops.add(mean, _float(self._shape.eps)))))
        return ops.multiply(scaled, ops.constant(self._weights.vector(name, layer)))

    def _told(self, name: str, layer: int | None = None) -> tuple[NDArray[np.float32], float]:
        """A norm's weights and epsilon."""
        return self._weights.vector(name, layer), self._shape.eps

    def _linears(self, state: Node, names: Sequence[str], layer: int, *, norm: str) -> list[Node]:
        """Projections of one state, normalised, as one multiplication where their matrices are of one kind."""
        parts = [self._weights.matrix(name, layer) for name in names]
        biases = [self._bias(name, layer) for name in names]
        sizes = [count(part) for part in parts]
        if self._packs is not None and (packed := self._packs.pack(names, layer, parts)) is not None:
            product = self._packs.kernel.product(state, packed, norm=self._told(norm, layer))
        else:
            normed = self._norm(state, norm, layer)
            whole = joined(parts)
            if whole is None:
                each = zip(names, parts, biases, strict=True)
                return [_biased(self._product(normed, name, layer, part), bias) for name, part, bias in each]
            product = self._multiplied(normed, whole)
        if any(each is not None for each in biases):
            zeros = (np.zeros(size, np.float32) for size in sizes)
            bias = np.concatenate([zero if each is None else each for each, zero in zip(biases, zeros, strict=True)])
            product = _biased(product, bias)
        split = ops.variadic_split(product, ops.constant(np.int64(-1)), _ints(*sizes))
        return [split.output(at) for at in range(len(names))]

    def _product(self, state: Node, name: str, layer: int, matrix: Matrix) -> Node:
        if self._packs is not None and (packed := self._packs.pack((name,), layer, [matrix])) is not None:
            return self._packs.kernel.product(state, packed)
        return self._multiplied(state, matrix)

    def _multiplied(self, state: Node, matrix: Matrix) -> Node:
        return ops.matmul(state, _matrix(_kept(matrix, self._keep)), False, True)

    def _bias(self, name: str, layer: int) -> NDArray[np.float32] | None:
        return self._weights.vector(f"{name}.bias", layer) if self._weights.has(f"{name}.bias", layer) else None

    def _heads(self, state: Node, name: str, count: int, layer: int) -> Node:
        """[T, 1, count * head_dim] to [T, count, 1, head_dim], normed per head where the family does so."""
        out = ops.reshape(state, _ints(0, 1, count, self._shape.head_dim), True)
        out = ops.transpose(out, ops.constant(np.array([0, 2, 1, 3], np.int32)))
        normed = name != "v" and self._weights.has(f"{name}_norm", layer)
        return self._norm(out, f"{name}_norm", layer) if normed else out

    def _attention(self, layer: int, q: Node, k: Node, v: Node, control: list[Node]) -> Node:
        shape = self._shape
        key_cache, value_cache = (
            self._input(f"{name}_cache.{layer}", [-1, -1, -1, -1], ov.Type.dynamic) for name in ("key", "value")
        )
        past, begins, pages, page_begins, longest = control
        none = [ops.constant(np.zeros(0, kind)) for kind in (np.int32, np.float32, np.uint8)]
        ints, floats, octets = none
        zero = ops.constant(np.int32(0))
        # The operation's 28 inputs in order; those after max_context_len are features that are off here (score
        # aggregation, rotated and evicted pages, sparse attention, sinks, adaptive cache, token types).
        inputs = [
            *(_flat(q, shape.heads, shape.head_dim), _flat(k, shape.kv_heads, shape.head_dim)),
            *(_flat(v, shape.kv_heads, shape.head_dim), key_cache, value_cache, past, begins, pages, page_begins),
            *(_float(shape.head_dim**-0.5), ops.constant(np.int32(shape.window)), floats, longest),
            *(ints, ints, ints, floats, floats, zero, zero),
            *(ops.constant(np.zeros((0, 0, 0, 0), np.float32)), zero, ints, ints, ints, ints, octets, ints),
        ]
        node = _PagedAttentionExtension([each.output(0) for each in inputs])
        sizes = {"num_k_heads": shape.kv_heads, "k_head_size": shape.head_dim}
        sizes |= {"num_v_heads": shape.kv_heads, "v_head_size": shape.head_dim}
        for name, size in sizes.items():
            node.get_rt_info()[name] = size
        return ops.reshape(node.output(0), _ints(-1, 1, shape.heads * shape.head_dim), False)


def _rotation(positions: Node, frequencies: Any) -> Callable[[Node], Node]:
    """Rotary position embedding (arXiv 2104.09864) over [T, heads, 1, head_dim], the two halves of a head as pairs."""
    half = frequencies.shape[0]
    at = ops.reshape(ops.convert(positions, "f32"), _ints(-1, 1, 1, 1), False)
    angles = ops.multiply(at, ops.constant(frequencies.astype(np.float32).reshape(1, 1, 1, -1)))
    angles = ops.concat([angles, angles], -1)
    cos, sin = ops.cos(angles), ops.sin(angles)

    def rotate(state: Node) -> Node:
        second = ops.slice(state, _ints(half), _ints(2**63 - 1), _ints(1), _ints(3))
        first = ops.slice(state, _ints(0), _ints(half), _ints(1), _ints(3))
        turned = ops.concat([ops.multiply(second, _float(-1.0)), first], -1)
        return ops.add(ops.multiply(state, cos), ops.multiply(turned, sin))

    return rotate


def _flat(state: Node, heads: int, head_dim: int) -> Node:
    """[T, heads, 1, head_dim] to [T, heads * head_dim]."""
    back = ops.transpose(state, ops.constant(np.array([0, 2, 1, 3], np.int32)))
    return ops.reshape(back, _ints(-1, heads * head_dim), False)


def _rows(state: Node, wanted: Node) -> Node:
    return ops.gather(state, wanted, ops.constant(np.int64(0)))


def _biased(state: Node, bias: NDArray[np.float32] | None) -> Node:
    return state if bias is None else ops.add(state, ops.constant(bias))


def _kept(matrix: Matrix, keep: Keep) -> Matrix:
    match matrix:
        case Float(values):
            return Float(keep(values))
        case Int8(values, scales):
            return Int8(keep(values), keep(scales))
        case UInt4(packed, scales):
            return UInt4(keep(packed), keep(scales))


def _matrix(matrix: Matrix) -> Node:
    """A constant that stays compressed: OpenVINO recognises constant, convert, subtract, multiply before a matmul.

    It shares the memory of the arrays.
    """
    match matrix:
        case Float(values):
            return ops.constant(values, shared_memory=True)
        case Int8(values, scales):
            rows, groups, size = values.shape
            whole = ops.convert(ops.constant(values, shared_memory=True), "f16")
        case UInt4(packed, scales):
            rows, groups, size = packed.shape[0], packed.shape[1], packed.shape[2] * 2
            nibbles = ov.Tensor(packed, ov.Shape([rows, groups, size]), ov.Type.u4)
            eight = ov.Tensor(ov.Type.u4, ov.Shape([1]))
            eight.data[:] = 8
            whole = ops.subtract(
                ops.convert(ops.constant(nibbles, shared_memory=True), "f16"), ops.convert(ops.constant(eight), "f16")
            )
    scaled = ops.multiply(whole, ops.constant(scales, shared_memory=True))
    return ops.convert(ops.reshape(scaled, _ints(rows, groups * size), False), "f32")


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, np.int64))


def _float(value: float) -> Node:
    return ops.constant(np.float32(value))
