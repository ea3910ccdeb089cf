"""Graphs of encoders with a table of positions: BERT (arXiv 1810.04805), RoBERTa and XLM-RoBERTa (1907.11692,
1911.02116), DistilBERT (1910.01108), and BERT with a head for spans.
"""

import numpy as np
import openvino as ov
import openvino.opset16 as op

from server.models.engines.encoders import nodes
from server.models.engines.encoders.body import Body


class Bert(Body):
    """Names are those of Hugging Face's BertModel and RobertaModel."""

    prefixes: tuple[str, ...] = ("bert.", "roberta.")
    stem = "encoder.layer."
    query, key, value = "attention.self.query", "attention.self.key", "attention.self.value"
    joint = "attention.output.dense"
    after_attention, after_inner = "attention.output.LayerNorm", "output.LayerNorm"
    widen, narrow = "intermediate.dense", "output.dense"

    def _states(self, ids: ov.Node, kinds: ov.Node | None, keep: ov.Node) -> ov.Node:
        bias = nodes.unpadded(keep)
        state = self._embedded(ids, kinds)
        for layer in range(self._shape.layers):
            state = self._layer(state, bias, f"{self._prefix}{self.stem}{layer}.")
        return state

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
        length = op.unsqueeze(nodes.length_of(ids), nodes.ints(0))
        here = op.slice(
            op.constant(np.ascontiguousarray(places)), nodes.longs(0), length, nodes.longs(1), nodes.longs(0)
        )
        summed = op.add(op.gather(op.constant(words), op.convert(ids, "i32"), nodes.ints(0)), here)
        if kinds is not None:
            summed = op.add(summed, op.gather(op.constant(table), op.convert(kinds, "i32"), nodes.ints(0)))
        return self._normed(summed, f"{name}LayerNorm")

    def _layer(self, state: ov.Node, bias: ov.Node, name: str) -> ov.Node:
        width, inner = self._shape.hidden, self._shape.inner
        heads = nodes.longs(0, 0, self._shape.heads, width // self._shape.heads)
        swap = nodes.ints(0, 2, 1, 3)
        query, key, value = (
            op.transpose(op.reshape(self._linear(state, f"{name}{part}", width, width), heads, True), swap)
            for part in (self.query, self.key, self.value)
        )
        attended = op.scaled_dot_product_attention(query, key, value, bias)
        joined = op.reshape(op.transpose(attended, swap), nodes.longs(0, 0, width), True)
        added = op.add(self._linear(joined, f"{name}{self.joint}", width, width), state)
        state = self._normed(added, f"{name}{self.after_attention}")
        wide = op.gelu(self._linear(state, f"{name}{self.widen}", width, inner), "ERF")
        narrow = self._linear(wide, f"{name}{self.narrow}", inner, width)
        return self._normed(op.add(narrow, state), f"{name}{self.after_inner}")

    def _logit(self, pooled: ov.Node) -> ov.Node:
        width = self._shape.hidden
        if self._shape.family == "bert":
            dense = op.tanh(self._linear(pooled, "bert.pooler.dense", width, width))
            return self._linear(dense, "classifier", width, 1)
        dense = op.tanh(self._linear(pooled, "classifier.dense", width, width))
        return self._linear(dense, "classifier.out_proj", width, 1)


class Spans(Bert):
    """The same encoder with two logits a token: does the answer start here, does it end here."""

    def model(self) -> ov.Model:
        ids, mask, kinds = (nodes.given(name) for name in ("input_ids", "attention_mask", "token_type_ids"))
        state = self._states(ids, kinds, op.convert(mask, "f32"))
        told = self._linear(state, "qa_outputs", self._shape.hidden, 2)
        told.output(0).set_names({"spans"})
        return ov.Model([op.result(told)], [ids, mask, kinds], "reader")


class Distil(Bert):
    """The same arithmetic under the names of DistilBertModel, with a head of its own."""

    prefixes = ("distilbert.",)
    stem = "transformer.layer."
    query, key, value, joint = "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"
    after_attention, after_inner = "sa_layer_norm", "output_layer_norm"
    widen, narrow = "ffn.lin1", "ffn.lin2"

    def _logit(self, pooled: ov.Node) -> ov.Node:
        width = self._shape.hidden
        return self._linear(op.relu(self._linear(pooled, "pre_classifier", width, width)), "classifier", width, 1)
