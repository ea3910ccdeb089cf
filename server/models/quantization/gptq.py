"""GPTQ: weights rounded to four bits so that what a layer says of real inputs stays the same. Needs torch.

Frantar, Ashkboos, Hoefler, Alistarh: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv 2210.17323, algorithm 1, with its steps 2 and 3: columns in blocks, and the Cholesky form of the
inverse Hessian. Each column's rounding error is made good by the columns still to come. Rounding the columns of the
largest Hessian first (`act_order`) is the authors' own later addition.

The packed form is that of AutoGPTQ, version 1: eight values a word along the inputs, zero points stored less one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEVELS = 16
PACKED = 8
"""Values of four bits in a word of 32."""
_DAMPING = (0.01, 0.1, 1.0)
"""Of the mean of the Hessian's diagonal, added to it: the paper's one hundredth, more where that does not do."""
_NARROWER, _STEP = 20, 0.02
"""How many ranges are tried for each group, and by how much each is narrower; what lies outside is cut."""
_SMALL = 1024


@dataclass(frozen=True)
class Rounded:
    """A matrix [out, in] in four bits: tensors of torch.

    `values` u8 [out, in] 0-15, `scales` f16 [groups, out], `zeros` u8 [groups, out] 1-15, `group` int32 [in] says which
    group an input is of. A weight is (value - zero) * scale.
    """

    values: Any
    scales: Any
    zeros: Any
    group: Any

    def weights(self) -> Any:
        """float32 [out, in]."""
        at = self.group.long()
        zeros, scales = self.zeros.float()[at].t(), self.scales.float()[at].t()
        return (self.values.float() - zeros) * scales

    def packed(self) -> dict[str, Any]:
        """`qweight` [in/8, out], `qzeros` [groups, out/8], `scales` and `g_idx`, as files hold them."""
        return {
            "qweight": _packed(self.values.t(), 0),
            "qzeros": _packed(self.zeros - 1, 1),
            "scales": self.scales.contiguous(),
            "g_idx": self.group.contiguous(),
        }

    @classmethod
    def of(cls, packed: dict[str, Any]) -> "Rounded":
        """The inverse of `packed`."""
        values, zeros = _unpacked(packed["qweight"], 0).t(), _unpacked(packed["qzeros"], 1) + 1
        return cls(values.contiguous(), packed["scales"], zeros, packed["g_idx"])


@contextmanager
def few_threads(width: int) -> Iterator[None]:
    """Matrices of `width` columns, if few, on one thread: several wait for each other longer than they compute."""
    import torch

    before = torch.get_num_threads()
    if width <= _SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rounded(weight: Any, hessian: Any, group: int, *, act_order: bool) -> Rounded:
    """`weight` [out, in] and `hessian` [in, in], the mean of x x^T over inputs; float32, both of them used up.

    `group` inputs share a scale, and in is a multiple of it. Raises ValueError where the Hessian cannot be inverted.
    """
    import torch

    columns = weight.shape[1]
    dead = torch.diagonal(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    order = torch.argsort(torch.diagonal(hessian), descending=True) if act_order else torch.arange(columns)
    order = order.to(weight.device)
    inverse = _inverse_factor(hessian[order][:, order])
    # Inputs are worked on as rows, which lie together.
    left = weight.t()[order].contiguous()
    values = torch.empty(left.shape, dtype=torch.uint8, device=weight.device)
    scales, zeros = [], []
    for start in range(0, columns, group):
        end = start + group
        block, factor = left[start:end], inverse[start:end, start:end]
        # What an error costs in the end is its square over that of the factor's diagonal (algorithm 1).
        scale, zero = _grid(block, torch.diagonal(factor).square().reciprocal())
        scales.append(scale.half())
        zeros.append(zero.to(torch.uint8))
        errors = torch.empty_like(block)
        for at in range(group):
            row = block[at]
            value = (torch.round(row / scale) + zero).clamp(0, LEVELS - 1)
            values[start + at] = value.to(torch.uint8)
            errors[at] = (row - (value - zero) * scale) / factor[at, at]
            block[at + 1 :].addr_(factor[at, at + 1 :], errors[at], alpha=-1)
        left[end:].addmm_(inverse[start:end, end:].t(), errors, alpha=-1)
    back = torch.argsort(order)
    groups = (torch.arange(columns, device=weight.device) // group).to(torch.int32)
    return Rounded(values[back].t(), torch.stack(scales), torch.stack(zeros), groups[back])


def _inverse_factor(hessian: Any) -> Any:
    """The upper Cholesky factor of the inverse of the damped Hessian."""
    import torch

    diagonal = torch.arange(hessian.shape[0], device=hessian.device)
    mean = torch.diagonal(hessian).mean()
    for share in _DAMPING:
        damped = hessian.clone()
        damped[diagonal, diagonal] += share * mean
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed:
                return upper
    raise ValueError("the inputs of a layer are not numbers that can be fitted to")


def _grid(block: Any, costs: Any) -> tuple[Any, Any]:
    """Scale and zero point [out] of each column of a group [group, out]: of the ranges tried, the one that rounds best.

    `costs` [group] is how much the square of an error counts. The stored zero point less one has four bits too, so a
    zero point is 1 at least.
    """
    import torch

    low, high = block.amin(0).clamp(max=0), block.amax(0).clamp(min=0)
    widest = torch.maximum((high - low) / (LEVELS - 1), high / (LEVELS - 2))
    best = torch.full_like(low, torch.inf)
    scale, zero = torch.ones_like(low), torch.ones_like(low)
    for narrower in range(_NARROWER):
        share = 1 - _STEP * narrower
        # To what is stored, so that the columns to come make good for that too.
        tried = (widest * share).clamp(min=1e-7).half().float()
        at = torch.round(-low * share / tried).clamp(1, LEVELS - 1)
        made = (block / tried).round_().add_(at).clamp_(0, LEVELS - 1).sub_(at).mul_(tried)
        error = costs @ made.sub_(block).square_()
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = torch.where(better, tried, scale), torch.where(better, at, zero)
    return scale, zero


def _packed(values: Any, along: int) -> Any:
    """Eight values of four bits in each int32, the first one lowest, along a dimension."""
    import torch

    wide = values.to(torch.int64).movedim(along, -1)
    words = wide.reshape(*wide.shape[:-1], -1, PACKED)
    shifts = 4 * torch.arange(PACKED, device=values.device)
    made = (words << shifts).sum(-1)
    made = torch.where(made >= 1 << 31, made - (1 << 32), made)
    return made.to(torch.int32).movedim(-1, along).contiguous()


def _unpacked(words: Any, along: int) -> Any:
    import torch

    moved = words.to(torch.int64).movedim(along, -1)
    shifts = 4 * torch.arange(PACKED, device=words.device)
    values = (moved[..., None] >> shifts) & (LEVELS - 1)
    return values.flatten(-2).to(torch.uint8).movedim(-1, along).contiguous()
