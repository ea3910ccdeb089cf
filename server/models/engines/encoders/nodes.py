"""The small pieces that graphs of encoders are put together from, in OpenVINO's operations. Knows no weights."""

import numpy as np
import openvino as ov
import openvino.opset16 as op

_MASKED = 3e4
"""How far what is not to be seen is pushed down before the softmax: finite, so that bf16 keeps it and no row is NaN."""


def given(name: str) -> ov.Node:
    """An input [B, S] int64."""
    node = op.parameter([-1, -1], np.int64)
    node.output(0).set_names({name})
    return node


def unpadded(keep: ov.Node) -> ov.Node:
    """Added to what attention weighs, [B, 1, 1, S]: 0 for real tokens, far down for padding; `keep` is 1 and 0."""
    return op.multiply(op.subtract(op.unsqueeze(keep, ints(1, 2)), real(1.0)), real(_MASKED))


def near(length: ov.Node, reach: int) -> ov.Node:
    """The same, [1, 1, S, S]: far down for tokens more than `reach` away."""
    return _hidden(op.greater(op.absolute(_distance(length)), long(reach)))


def before(length: ov.Node) -> ov.Node:
    """The same, [1, 1, S, S]: far down for tokens that come later."""
    return _hidden(op.greater(_distance(length), long(0)))


def _distance(length: ov.Node) -> ov.Node:
    """[S, S], whole numbers: how far the token of the column stands behind that of the row."""
    at = op.range(long(0), length, long(1), "i64")
    return op.subtract(op.unsqueeze(at, ints(0)), op.unsqueeze(at, ints(1)))


def _hidden(which: ov.Node) -> ov.Node:
    return op.unsqueeze(op.select(which, real(-_MASKED), real(0.0)), ints(0, 1))


def length_of(ids: ov.Node) -> ov.Node:
    """S of [B, S], a scalar."""
    return op.gather(op.shape_of(ids, "i64"), long(1), long(0))


def mean(state: ov.Node, keep: ov.Node) -> ov.Node:
    """The mean of the real tokens' states."""
    weights = op.unsqueeze(keep, ints(-1))
    total = op.reduce_sum(op.multiply(state, weights), ints(1), False)
    return op.divide(total, op.maximum(op.reduce_sum(weights, ints(1), False), real(1e-9)))


def first(state: ov.Node) -> ov.Node:
    return op.gather(state, long(0), long(1))


def last(state: ov.Node, mask: ov.Node) -> ov.Node:
    """The state of the last real token."""
    at = op.subtract(op.reduce_sum(mask, ints(1), False), long(1))
    return op.gather(state, at, long(1), batch_dims=1)


def unit(vectors: ov.Node) -> ov.Node:
    return op.normalize_l2(vectors, ints(1), 1e-12, "max")


def ints(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int32))


def longs(*values: int) -> ov.Node:
    return op.constant(np.array(values, np.int64))


def long(value: int) -> ov.Node:
    return op.constant(np.int64(value))


def real(value: float) -> ov.Node:
    return op.constant(np.float32(value))
