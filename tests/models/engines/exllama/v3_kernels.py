"""Kernels of ExLlamaV3 in torch: those that a vision tower, and a language model of 16 bits without a cache, call.

To be imported after `names.install()`; from then on they compute, on the processor, and weights are read by Python.
"""

from typing import Any

import torch
import torch.nn.functional as F  # its usual name
from exllamav3.loader import SafetensorsCollection
from exllamav3.modules.attention_fn import dispatch
from exllamav3.modules.quant import fp16
from exllamav3.util.rope import RopeStyle

from tests.models.engines.exllama.names import KERNELS
from tests.models.engines.exllama.processor import gen_mrope_pos_ids


def rms_norm(
    x: Any,
    weight: Any,
    out: Any,
    epsilon: float,
    bias: float,
    scale: float,
    span: bool = False,
    add: bool = False,
    *_: Any,
) -> None:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon) * scale * (weight.float() + bias)
    out.copy_((normed + out.float() if add else normed).to(out.dtype))


def rms_norm_res_in(x: Any, weight: Any, out: Any, rest: Any, *how: Any) -> None:
    rest += x
    rms_norm(rest, weight, out, *how)


def hgemm(one: Any, other: Any, out: Any) -> None:
    out.copy_((one.float() @ other.float()).to(out.dtype))


def silu_mul(gate: Any, up: Any, out: Any, limit: float) -> None:
    out.copy_((F.silu(gate.float()) * up.float()).to(out.dtype))


def gelu_mul(gate: Any, up: Any, out: Any, limit: float) -> None:
    out.copy_((F.gelu(gate.float(), approximate="tanh") * up.float()).to(out.dtype))


def rope(q: Any, out_q: Any, k: Any, out_k: Any, table: Any, position: int, *rest: Any) -> None:
    _, ids, style, _, q_norm, k_norm, epsilon, bias = rest[:8]
    table = table.float()
    if table.dim() == 1:
        angles = torch.arange(position, position + q.shape[1])[:, None] * table
    else:
        table = table.reshape(-1, table.shape[-1])
        angles = table[: q.shape[1]] if ids is None else table[ids[0].long()]
    angles = angles.unsqueeze(1)
    for x, out, norm in ((q, out_q, q_norm), (k, out_k, k_norm)):
        wide = x.float()
        if norm is not None:
            wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon) * (norm.float() + bias)
        turned, still = wide[..., : 2 * table.shape[-1]], wide[..., 2 * table.shape[-1] :]
        one, other = (turned[..., ::2], turned[..., 1::2]) if style == RopeStyle.GPTJ else turned.chunk(2, -1)
        sides = one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()
        turned = torch.stack(sides, -1).flatten(-2) if style == RopeStyle.GPTJ else torch.cat(sides, -1)
        out.copy_(torch.cat((turned, still), -1).to(out.dtype))


def attend(asked: Any) -> Any:
    q, k, v = (each.transpose(1, 2) for each in (asked.q, asked.k, asked.v))
    mask = None
    if asked.cu_seqlens is not None:
        piece = torch.bucketize(torch.arange(q.shape[2]), asked.cu_seqlens[1:].long(), right=True)
        mask = piece[:, None] == piece[None]
    found = F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=asked.causal, scale=asked.sm_scale, enable_gqa=q.shape[1] != k.shape[1]
    )
    return found.transpose(1, 2)


class _Torch:
    """torch, whose products of 16 bits are not slow on a processor."""

    def matmul(self, one: Any, other: Any, out: Any) -> None:
        hgemm(one, other, out)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


_usual = SafetensorsCollection.__init__


def _reading(self: Any, *given: Any, **named: Any) -> None:
    _usual(self, *given, **named)
    self.load_method = "python"


for function in (rms_norm, rms_norm_res_in, hgemm, silu_mul, gelu_mul, rope, gen_mrope_pos_ids):
    setattr(KERNELS, function.__name__, function)
dispatch.attn_fns[:] = [attend]
fp16.torch = _Torch()
SafetensorsCollection.__init__ = _reading
