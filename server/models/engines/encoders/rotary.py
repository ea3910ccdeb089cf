"""Graphs of encoders whose positions turn queries and keys (RoPE, arXiv 2104.09864), with gated feed-forward networks.

ModernBERT (arXiv 2412.13663), NomicBERT (2402.01613), and Qwen3 (2505.09388) as an embedder (2506.05176).
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import openvino as ov
import openvino.opset16 as op

from server.models.engines.encoders import nodes
from server.models.engines.encoders.body import Body
from server.models.engines.encoders.config import Shape
from server.models.engines.encoders.tensors import Tensors


@dataclass(frozen=True)
class _View:
    """What a layer's attention sees: `bias` is added before the softmax, `turn` puts positions into heads."""

    bias: ov.Node
    turn: Callable[[ov.Node], ov.Node]


class _Rotary(Body):
    """One attention and one gated network a layer; matrices stay as they are stored where that is bfloat16."""

    def __init__(self, tensors: Tensors, shape: Shape) -> None:
        super().__init__(tensors, shape)
        assert shape.rotary is not None, "a family of this file has its rotary settings"
        self._rotary = shape.rotary

    def _states(self, ids: ov.Node, kinds: ov.Node | None, keep: ov.Node) -> ov.Node:
        length = nodes.length_of(ids)
        bias = nodes.before(length) if self._rotary.causal else nodes.unpadded(keep)
        wide = _View(bias, self._turning(length, self._rotary.theta))
        narrow = wide
        if any(self._rotary.local):
            near = op.add(bias, nodes.near(length, self._rotary.reach))
            narrow = _View(near, self._turning(length, self._rotary.local_theta))
        state = self._embedded(ids, kinds)
        for layer, local in enumerate(self._rotary.local):
            state = self._layer(state, layer, narrow if local else wide)
        return self._ended(state)

    @abstractmethod
    def _embedded(self, ids: ov.Node, kinds: ov.Node | None) -> ov.Node: ...

    @abstractmethod
    def _layer(self, state: ov.Node, layer: int, view: _View) -> ov.Node: ...

    def _ended(self, state: ov.Node) -> ov.Node:
        return state

    def _turning(self, length: ov.Node, theta: float) -> Callable[[ov.Node], ov.Node]:
        """Turns [B, heads, S, head]: the two halves of a head are pairs.

        The angles are tables, because angles computed in bf16 would be far off for late positions.
        """
        half = self._shape.head // 2
        angles = np.outer(np.arange(self._shape.window), theta ** -(np.arange(half) / half))
        angles = np.concatenate([angles, angles], axis=1)
        stop = op.unsqueeze(length, nodes.ints(0))
        cos, sin = (
            op.slice(op.constant(table.astype(np.float32)), nodes.longs(0), stop, nodes.longs(1), nodes.longs(0))
            for table in (np.cos(angles), np.sin(angles))
        )

        def turn(heads: ov.Node) -> ov.Node:
            parts = op.split(heads, nodes.long(-1), 2)
            turned = op.concat([op.negative(parts.output(1)), parts.output(0)], -1)
            return op.add(op.multiply(heads, cos), op.multiply(turned, sin))

        return turn

    def _attended(self, query: ov.Node, key: ov.Node, value: ov.Node, view: _View) -> ov.Node:
        """[B, S, heads * head] from heads [B, heads, S, head], of which keys and values may be fewer."""
        each = self._shape.heads // self._shape.kv_heads
        key, value = (_repeated(part, each) for part in (view.turn(key), value))
        attended = op.scaled_dot_product_attention(view.turn(query), key, value, view.bias)
        width = self._shape.heads * self._shape.head
        return op.reshape(op.transpose(attended, nodes.ints(0, 2, 1, 3)), nodes.longs(0, 0, width), True)

    def _split(self, state: ov.Node, count: int) -> ov.Node:
        """[B, S, count * head] to [B, S, count, head]."""
        return op.reshape(state, nodes.longs(0, 0, count, self._shape.head), True)

    def _joint(self, state: ov.Node, name: str) -> tuple[ov.Node, ov.Node, ov.Node]:
        """Query, key and value [B, heads, S, head] of one matrix for all three."""
        width = self._shape.hidden
        parts = op.split(self._stored(state, name, width, 3 * width), nodes.long(-1), 3)
        query, key, value = (
            op.transpose(self._split(parts.output(at), self._shape.heads), nodes.ints(0, 2, 1, 3)) for at in range(3)
        )
        return query, key, value

    def _stored(self, x: ov.Node, name: str, come: int, go: int) -> ov.Node:
        """A projection without a bias."""
        return op.matmul(x, self._constant(f"{name}.weight", go, come), False, True)

    def _found(self, ids: ov.Node, name: str) -> ov.Node:
        table = self._constant(name, self._shape.vocabulary, self._shape.hidden)
        return op.gather(table, op.convert(ids, "i32"), nodes.ints(0))

    def _constant(self, name: str, *shape: int) -> ov.Node:
        halves = self._tensors.bfloats(name, shape)
        if halves is None:
            return op.constant(self._tensor(name, *shape))
        tensor = ov.Tensor(ov.Type.bf16, ov.Shape(list(shape)))
        tensor.data.view(np.uint16)[:] = halves
        return op.convert(op.constant(tensor), "f32")


class Modern(_Rotary):
    """Names are those of Hugging Face's ModernBertModel. Norms come first, and the first layer has none."""

    prefixes = ("model.",)
    words = "embeddings.tok_embeddings.weight"

    def _embedded(self, ids: ov.Node, kinds: ov.Node | None) -> ov.Node:
        return self._plain(self._found(ids, f"{self._prefix}{self.words}"), f"{self._prefix}embeddings.norm")

    def _layer(self, state: ov.Node, layer: int, view: _View) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        name = f"{self._prefix}layers.{layer}."
        normed = self._plain(state, f"{name}attn_norm") if layer else state
        attended = self._attended(*self._joint(normed, f"{name}attn.Wqkv"), view)
        state = op.add(state, self._stored(attended, f"{name}attn.Wo", width, width))
        both = self._stored(self._plain(state, f"{name}mlp_norm"), f"{name}mlp.Wi", width, 2 * inner)
        parts = op.split(both, nodes.long(-1), 2)
        gated = op.multiply(op.gelu(parts.output(0), "ERF"), parts.output(1))
        return op.add(state, self._stored(gated, f"{name}mlp.Wo", inner, width))

    def _ended(self, state: ov.Node) -> ov.Node:
        return self._plain(state, f"{self._prefix}final_norm")

    def _plain(self, state: ov.Node, name: str) -> ov.Node:
        return self._normed(state, name, biased=False)

    def _logit(self, pooled: ov.Node) -> ov.Node:
        width = self._shape.hidden
        dense = op.gelu(self._stored(pooled, "head.dense", width, width), "ERF")
        return self._linear(self._plain(dense, "head.norm"), "classifier", width, 1)


class Nomic(_Rotary):
    """Names are those of the published NomicBertModel. Norms come last, as in BERT."""

    def _embedded(self, ids: ov.Node, kinds: ov.Node | None) -> ov.Node:
        """Every token is of type 0: this family has no reranker."""
        words = self._found(ids, self.words)
        if self._shape.kinds:
            table = self._tensor("embeddings.token_type_embeddings.weight", self._shape.kinds, self._shape.hidden)
            words = op.add(words, op.constant(table[0]))
        return self._normed(words, "emb_ln")

    def _layer(self, state: ov.Node, layer: int, view: _View) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        name = f"encoder.layers.{layer}."
        attended = self._attended(*self._joint(state, f"{name}attn.Wqkv"), view)
        added = op.add(state, self._stored(attended, f"{name}attn.out_proj", width, width))
        state = self._normed(added, f"{name}norm1")
        gate = op.swish(self._stored(state, f"{name}mlp.fc12", width, inner))
        gated = op.multiply(self._stored(state, f"{name}mlp.fc11", width, inner), gate)
        return self._normed(op.add(state, self._stored(gated, f"{name}mlp.fc2", inner, width)), f"{name}norm2")


class Qwen3(_Rotary):
    """Names are those of Hugging Face's Qwen3Model: a decoder whose tokens see those before them alone."""

    prefixes = ("model.",)
    words = "embed_tokens.weight"

    def _embedded(self, ids: ov.Node, kinds: ov.Node | None) -> ov.Node:
        return self._found(ids, f"{self._prefix}{self.words}")

    def _layer(self, state: ov.Node, layer: int, view: _View) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        name = f"{self._prefix}layers.{layer}."
        normed = self._root(state, f"{name}input_layernorm", width)
        query, key, value = (
            self._projected(normed, f"{name}self_attn.{part}", count)
            for part, count in (("q", self._shape.heads), ("k", self._shape.kv_heads), ("v", self._shape.kv_heads))
        )
        attended = self._attended(query, key, value, view)
        joined = self._shape.heads * self._shape.head
        state = op.add(state, self._stored(attended, f"{name}self_attn.o_proj", joined, width))
        normed = self._root(state, f"{name}post_attention_layernorm", width)
        gate, up = (self._stored(normed, f"{name}mlp.{part}_proj", width, inner) for part in ("gate", "up"))
        return op.add(state, self._stored(op.multiply(op.swish(gate), up), f"{name}mlp.down_proj", inner, width))

    def _ended(self, state: ov.Node) -> ov.Node:
        return self._root(state, f"{self._prefix}norm", self._shape.hidden)

    def _projected(self, state: ov.Node, name: str, count: int) -> ov.Node:
        """Heads [B, count, S, head]; those of queries and keys have a norm."""
        heads = self._split(self._stored(state, f"{name}_proj", self._shape.hidden, count * self._shape.head), count)
        if not name.endswith("v"):
            heads = self._root(heads, f"{name}_norm", self._shape.head)
        return op.transpose(heads, nodes.ints(0, 2, 1, 3))

    def _root(self, state: ov.Node, name: str, width: int) -> ov.Node:
        """RMSNorm (arXiv 1910.07467)."""
        square = op.reduce_mean(op.multiply(state, state), nodes.ints(-1), True)
        scaled = op.divide(state, op.sqrt(op.add(square, nodes.real(self._shape.epsilon))))
        return op.multiply(scaled, op.constant(self._tensor(f"{name}.weight", width)))


def _repeated(heads: ov.Node, each: int) -> ov.Node:
    """[B, n, S, head] to [B, n * each, S, head]: neighbouring queries share a key."""
    if each == 1:
        return heads
    count, head = heads.output(0).partial_shape[1], heads.output(0).partial_shape[3]
    wide = op.concat([op.unsqueeze(heads, nodes.ints(2))] * each, 2)
    return op.reshape(wide, nodes.longs(0, count.get_length() * each, -1, head.get_length()), True)
