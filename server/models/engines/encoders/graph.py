"""An encoder's graph in OpenVINO's own operations, from config and safetensors, without torch. For workers only.

Families: BERT (arXiv 1810.04805), RoBERTa and XLM-RoBERTa (1907.11692, 1911.02116), DistilBERT (1910.01108).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset16 as op
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from server.models.engines.encoders.config import Shape

VERSION = 3
"""Part of the cache's key: to be raised with every change of what is built here."""

_MASKED = 3e4
"""How far padding is pushed down before the softmax: finite, so that bf16 keeps it and no row becomes NaN."""


def build(weights: Path, shape: Shape) -> ov.Model:
    """The encoder as a graph from input_ids and attention_mask [B, S] int64.

    For embed the output is `embedding` [B, hidden] float32 of unit length; for rerank `score` [B, 1] float32, 0 to 1,
    and families with token types have a third input, token_type_ids. Raises ValueError naming the file that cannot be
    read, or the tensor that is missing or has another shape.
    """
    try:
        # Mapped, not loaded: a big model's weights are in memory once, as the graph's constants.
        with safe_open(weights, framework="numpy") as tensors:
            graph = (_Distil if shape.family == "distilbert" else _Bert)(_Tensors(weights, tensors), shape)
            return graph.model()
    except _Unfit as error:
        raise ValueError(f"{weights}: {error}") from error
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{weights}: cannot be read: {error}") from error


def build_spans(weights: Path, trained: Path, shape: Shape) -> ov.Model:
    """A BERT encoder with a span head: `spans` [B, S, 2] float32 from input_ids, attention_mask and token_type_ids.

    Embeddings come from `weights`, layers and head (`qa_outputs`) from `trained`, where they may be int8 with one
    float32 scale a row. Raises ValueError as `build` does.
    """
    try:
        with safe_open(weights, framework="numpy") as given, safe_open(trained, framework="numpy") as own:
            return _Spans(_Layered(_Tensors(trained, own), _Tensors(weights, given)), shape).model()
    except _Unfit as error:
        raise ValueError(f"{trained}: {error}") from error
    except (SafetensorError, TypeError) as error:
        raise ValueError(f"{trained}: cannot be read: {error}") from error


class _Unfit(ValueError):
    """A tensor that is not what config.json leads one to expect."""


class _Tensors:
    """The tensors of one file as float32; it also reads bfloat16, which numpy and so safetensors' numpy do not know.

    The layout is that of github.com/huggingface/safetensors, README.md, "Format".
    """

    def __init__(self, file: Path, opened: Any) -> None:
        """`opened` is the file as safe_open gives it, which has checked its header."""
        self._file = file
        self._opened = opened
        self.names = frozenset(opened.keys())

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Raises _Unfit where there is no such tensor of that shape."""
        if name not in self.names:
            raise _Unfit(f"has no tensor {name}")
        told = self._opened.get_slice(name)
        if told.get_shape() != list(shape):
            raise _Unfit(f"{name} is {told.get_shape()}, by config.json it should be {list(shape)}")
        match told.get_dtype():
            case "BF16":
                return self._widened(name).reshape(shape)
            case "F16" | "F32" | "F64":
                return np.ascontiguousarray(self._opened.get_tensor(name), np.float32)
            case "I8" if f"{name}_scale" in self.names:
                scale = self.read(f"{name}_scale", (shape[0], 1))
                return np.asarray(self._opened.get_tensor(name) * scale, np.float32)
            case other:
                raise _Unfit(f"{name} is {other}; BF16, F16, F32 and F64 are read, and I8 with its scales")

    def _widened(self, name: str) -> NDArray[np.float32]:
        with self._file.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            start, end = json.loads(file.read(size))[name]["data_offsets"]
            file.seek(8 + size + start)
            halves = np.frombuffer(file.read(end - start), "<u2")
        return (halves.astype(np.uint32) << 16).view(np.float32)


class _Layered(_Tensors):
    """The tensors of one file, and of another those that it has not."""

    def __init__(self, first: _Tensors, rest: _Tensors) -> None:
        self._first = first
        self._rest = rest
        self.names = first.names | rest.names

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return (self._first if name in self._first.names else self._rest).read(name, shape)


class _Bert:
    """Builds one encoder; names are those of Hugging Face's BertModel and RobertaModel."""

    stem = "encoder.layer."
    query, key, value = "attention.self.query", "attention.self.key", "attention.self.value"
    joint = "attention.output.dense"
    after_attention, after_inner = "attention.output.LayerNorm", "output.LayerNorm"
    widen, narrow = "intermediate.dense", "output.dense"

    def __init__(self, tensors: _Tensors, shape: Shape) -> None:
        self._tensors = tensors
        self._shape = shape
        body = shape.family.rpartition("-")[2]
        self._prefix = f"{body}." if f"{body}.embeddings.word_embeddings.weight" in tensors.names else ""

    def model(self) -> ov.Model:
        ids, mask = _input("input_ids"), _input("attention_mask")
        inputs = [ids, mask]
        scoring = self._shape.task == "rerank"
        kinds: ov.Node | None = None
        if scoring and self._shape.kinds > 1:
            kinds = _input("token_type_ids")
            inputs.append(kinds)
        keep = op.convert(mask, "f32")
        bias = _bias(keep)
        state = self._embedded(ids, kinds)
        for layer in range(self._shape.layers):
            state = self._layer(state, bias, f"{self._prefix}{self.stem}{layer}.")
        told = op.sigmoid(self._head(_first(state))) if scoring else _unit(self._pooled(state, mask, keep))
        told.output(0).set_names({"score" if scoring else "embedding"})
        return ov.Model([op.result(told)], inputs, "encoder")

    def _tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        return self._tensors.read(name, shape)

    def _embedded(self, ids: ov.Node, kinds: ov.Node | None) -> ov.Node:
        """The sum of word, position and token type; without `kinds` every token is of type 0."""
        name, width = f"{self._prefix}embeddings.", self._shape.hidden
        words = self._tensor(f"{name}word_embeddings.weight", self._shape.vocabulary, width)
        places = self._tensor(f"{name}position_embeddings.weight", self._shape.positions, width)[self._shape.skipped :]
        table = None
        if self._shape.kinds:
            table = self._tensor(f"{name}token_type_embeddings.weight", self._shape.kinds, width)
            if kinds is None:
                places = places + table[0]
        length = op.unsqueeze(op.gather(op.shape_of(ids, "i64"), _long(1), _long(0)), _ints(0))
        here = op.slice(op.constant(np.ascontiguousarray(places)), _longs(0), length, _longs(1), _longs(0))
        summed = op.add(op.gather(op.constant(words), op.convert(ids, "i32"), _ints(0)), here)
        if kinds is not None:
            summed = op.add(summed, op.gather(op.constant(table), op.convert(kinds, "i32"), _ints(0)))
        return self._normed(summed, f"{name}LayerNorm")

    def _layer(self, state: ov.Node, bias: ov.Node, name: str) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        heads = _longs(0, 0, self._shape.heads, width // self._shape.heads)
        swap = _ints(0, 2, 1, 3)
        query, key, value = (
            op.transpose(op.reshape(self._linear(state, f"{name}{part}", width, width), heads, True), swap)
            for part in (self.query, self.key, self.value)
        )
        attended = op.scaled_dot_product_attention(query, key, value, bias)
        joined = op.reshape(op.transpose(attended, swap), _longs(0, 0, width), True)
        added = op.add(self._linear(joined, f"{name}{self.joint}", width, width), state)
        state = self._normed(added, f"{name}{self.after_attention}")
        wide = op.gelu(self._linear(state, f"{name}{self.widen}", width, inner), "ERF")
        narrow = self._linear(wide, f"{name}{self.narrow}", inner, width)
        return self._normed(op.add(narrow, state), f"{name}{self.after_inner}")

    def _pooled(self, state: ov.Node, mask: ov.Node, keep: ov.Node) -> ov.Node:
        match self._shape.pooling:
            case "cls":
                return _first(state)
            case "last":
                at = op.subtract(op.reduce_sum(mask, _ints(1), False), _long(1))
                return op.gather(state, at, _long(1), batch_dims=1)
            case _:
                return _mean(state, keep)

    def _head(self, first: ov.Node) -> ov.Node:
        """The logit [B, 1] from the first token's state."""
        width = self._shape.hidden
        if self._shape.family == "bert":
            return self._linear(op.tanh(self._linear(first, "bert.pooler.dense", width, width)), "classifier", width, 1)
        dense = op.tanh(self._linear(first, "classifier.dense", width, width))
        return self._linear(dense, "classifier.out_proj", width, 1)

    def _linear(self, x: ov.Node, name: str, come: int, go: int) -> ov.Node:
        weight = op.constant(self._tensor(f"{name}.weight", go, come))
        return op.add(op.matmul(x, weight, False, True), op.constant(self._tensor(f"{name}.bias", go)))

    def _normed(self, x: ov.Node, name: str) -> ov.Node:
        scale, shift = (op.constant(self._tensor(f"{name}.{part}", self._shape.hidden)) for part in ("weight", "bias"))
        return op.add(op.multiply(op.mvn(x, _ints(-1), True, self._shape.epsilon, "INSIDE_SQRT"), scale), shift)


class _Spans(_Bert):
    """The same encoder with two logits a token: does the answer start here, does it end here."""

    def model(self) -> ov.Model:
        ids, mask, kinds = _input("input_ids"), _input("attention_mask"), _input("token_type_ids")
        bias = _bias(op.convert(mask, "f32"))
        state = self._embedded(ids, kinds)
        for layer in range(self._shape.layers):
            state = self._layer(state, bias, f"{self._prefix}{self.stem}{layer}.")
        told = self._linear(state, "qa_outputs", self._shape.hidden, 2)
        told.output(0).set_names({"spans"})
        return ov.Model([op.result(told)], [ids, mask, kinds], "reader")


class _Distil(_Bert):
    """The same arithmetic under the names of DistilBertModel, with a head of its own."""

    stem = "transformer.layer."
    query, key, value, joint = "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"
    after_attention, after_inner = "sa_layer_norm", "output_layer_norm"
    widen, narrow = "ffn.lin1", "ffn.lin2"

    def _head(self, first: ov.Node) -> ov.Node:
        width = self._shape.hidden
        return self._linear(op.relu(self._linear(first, "pre_classifier", width, width)), "classifier", width, 1)


def _input(name: str) -> ov.Node:
    node = op.parameter([-1, -1], np.int64)
    node.output(0).set_names({name})
    return node


def _bias(keep: ov.Node) -> ov.Node:
    """Added to what attention weighs: 0 for real tokens, far down for padding."""
    return op.multiply(op.subtract(op.unsqueeze(keep, _ints(1, 2)), _float(1.0)), _float(_MASKED))


def _mean(state: ov.Node, keep: ov.Node) -> ov.Node:
    """The mean of the real tokens' states."""
    weights = op.unsqueeze(keep, _ints(-1))
    total = op.reduce_sum(op.multiply(state, weights), _ints(1), False)
    return op.divide(total, op.maximum(op.reduce_sum(weights, _ints(1), False), _float(1e-9)))


def _first(state: ov.Node) -> ov.Node:
    return op.gather(state, _long(0), _long(1))


def _unit(vectors: ov.Node) -> ov.Node:
    return op.normalize_l2(vectors, _ints(1), 1e-12, "max")


def _ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int32))


def _longs(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def _long(value: int) -> ov.Node:
    return op.constant(np.int64(value))


def _float(value: float) -> ov.Node:
    return op.constant(np.float32(value))
