"""What the graphs of all encoders share: their inputs, projections and norms, and what is told of the last states."""

from abc import ABC, abstractmethod

import numpy as np
import openvino as ov
import openvino.opset16 as op
from numpy.typing import NDArray

from server.models.engines.encoders import nodes
from server.models.engines.encoders.config import Shape
from server.models.engines.encoders.tensors import Tensors, Unfit


class Body(ABC):
    """Builds one encoder; a family says how token ids become states, and states a score."""

    prefixes: tuple[str, ...] = ()
    """What may stand before the names of all tensors, where the weights were stored with a head."""
    words = "embeddings.word_embeddings.weight"

    def __init__(self, tensors: Tensors, shape: Shape) -> None:
        self._tensors = tensors
        self._shape = shape
        self._prefix = next((each for each in self.prefixes if f"{each}{self.words}" in tensors.names), "")

    def model(self) -> ov.Model:
        ids, mask = nodes.given("input_ids"), nodes.given("attention_mask")
        inputs = [ids, mask]
        scoring = self._shape.task == "rerank"
        kinds: ov.Node | None = None
        if scoring and self._shape.kinds > 1:
            kinds = nodes.given("token_type_ids")
            inputs.append(kinds)
        keep = op.convert(mask, "f32")
        state = self._states(ids, kinds, keep)
        pooled = self._pooled(state, mask, keep)
        told = op.sigmoid(self._logit(pooled)) if scoring else nodes.unit(pooled)
        told.output(0).set_names({"score" if scoring else "embedding"})
        return ov.Model([op.result(told)], inputs, "encoder")

    @abstractmethod
    def _states(self, ids: ov.Node, kinds: ov.Node | None, keep: ov.Node) -> ov.Node:
        """[B, S, hidden] from ids [B, S]; `keep` [B, S] is 1 for real tokens and 0 for padding."""

    def _logit(self, pooled: ov.Node) -> ov.Node:
        """[B, 1] from one state a row [B, hidden]. Raises Unfit for a family without a reranker."""
        raise Unfit(f"a {self._shape.family} encoder has no scoring head that is known here")

    def _pooled(self, state: ov.Node, mask: ov.Node, keep: ov.Node) -> ov.Node:
        match self._shape.pooling or self._shape.scored:
            case "cls":
                return nodes.first(state)
            case "last":
                return nodes.last(state, mask)
            case _:
                return nodes.mean(state, keep)

    def _tensor(self, name: str, *shape: int) -> NDArray[np.float32]:
        return self._tensors.read(name, shape)

    def _linear(self, x: ov.Node, name: str, come: int, go: int, *, biased: bool = True) -> ov.Node:
        out = op.matmul(x, op.constant(self._tensor(f"{name}.weight", go, come)), False, True)
        return op.add(out, op.constant(self._tensor(f"{name}.bias", go))) if biased else out

    def _normed(self, x: ov.Node, name: str, *, biased: bool = True) -> ov.Node:
        even = op.mvn(x, nodes.ints(-1), True, self._shape.epsilon, "INSIDE_SQRT")
        scaled = op.multiply(even, op.constant(self._tensor(f"{name}.weight", self._shape.hidden)))
        return op.add(scaled, op.constant(self._tensor(f"{name}.bias", self._shape.hidden))) if biased else scaled
