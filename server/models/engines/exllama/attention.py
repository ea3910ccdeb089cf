"""Causal attention over pages for ExLlamaV2 where flash-attn is not installed: its interface, on torch, and on a
Triton kernel of our own for new tokens.

Without flash-attn ExLlamaV2 computes attention without a causal mask, which is wrong, and takes one request at a
time. It looks for three functions and some flags in its own module, and finds those here. Shapes are flash-attn's:
q [batch, queries, heads, width], keys and values [batch or pages, rows, key heads, width].
"""

import inspect
import logging
import sys
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F  # its usual name
from torch.nn.attention.bias import causal_lower_right

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None
_PAGED = varlen_attn is not None and "block_table" in inspect.signature(varlen_attn).parameters
"""Whether torch has a kernel that reads pages, which it has from 2.13 on."""

log = logging.getLogger(__name__)

FLASH = "flash-attn"
TORCH_PAGED, TORCH, TRITON = "torch varlen", "torch sdpa", "triton"


class Longest:
    """How many rows of keys the longest sequence of the next pass has, its new ones counted.

    The generator knows it on the processor; asking the GPU would wait for all that it still has to do.
    """

    def __init__(self) -> None:
        self.rows = 0


_longest = Longest()
BACKEND = TORCH_PAGED if _PAGED and torch.cuda.is_available() else TORCH
"""Which of torch's own functions computes it here."""
_kernel: Any = None
"""The module `paged_kernel` where new tokens are left to it."""
_forgone = False


def expect(rows: int) -> Longest:
    """Say how many rows of keys the longest sequence has, for calls without ExLlamaV2; returns where that is kept."""
    _longest.rows = rows
    return _longest


def register() -> tuple[str, Longest]:
    """Give ExLlamaV2 its attention, unless flash-attn did; which one it is, and what is to be told before each pass.

    New tokens are left to our Triton kernel where a short trial finds it right and faster.
    """
    attn: Any = sys.modules["exllamav2.attn"]
    model: Any = sys.modules["exllamav2.model"]
    here = getattr(attn, "flash_attn_with_kvcache", None)
    if attn.has_flash_attn_with_paged and here is not flash_attn_with_kvcache:
        return FLASH, _longest
    attn.flash_attn_func = flash_attn_func
    attn.flash_attn_varlen_func = flash_attn_varlen_func
    attn.flash_attn_with_kvcache = flash_attn_with_kvcache
    attn.has_flash_attn = attn.has_flash_attn_with_paged = True
    attn.has_flash_attn_with_window = attn.has_flash_attn_with_softcap = True
    model.has_flash_attn = True
    return _chosen(), _longest


def forgo_kernel() -> None:
    """Leave all to torch in this process, whatever a trial would find; before `register`."""
    global _forgone
    _forgone = True


def _chosen() -> str:
    """Try the Triton kernel where there is a GPU for it; what computes from now on, for new tokens first."""
    global _kernel
    _kernel = None
    if _forgone or not torch.cuda.is_available() or find_spec("triton") is None:
        return BACKEND
    from server.models.engines.exllama import paged_kernel

    if (reason := paged_kernel.objection(_by_torch, torch.device("cuda", torch.cuda.current_device()))) is not None:
        log.info("attention of new tokens stays with %s: %s", BACKEND, reason)
        return BACKEND
    _kernel = paged_kernel
    return f"{TRITON}, {BACKEND}"


def flash_attn_with_kvcache(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    k: Any = None,
    v: Any = None,
    cache_seqlens: Any = None,
    block_table: Any = None,
    softmax_scale: float | None = None,
    causal: bool = True,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
) -> Any:
    """Attention of the newest `queries` rows of each sequence, which `k` and `v` bring where they are given.

    `cache_seqlens` int32 [batch] counts the rows before them, or all where `k` is None. `block_table` int32 [batch,
    pages] says which pages of the cache are a sequence's own.
    """
    if not causal:
        raise ValueError("attention over pages is causal")
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    compute = _kernel.attend if _kernel is not None and _kernel.takes(q, k_cache) else _by_torch
    given = q, k_cache, v_cache, k, v, cache_seqlens, block_table, scale, window_size[0], softcap, _longest.rows
    return compute(*given)


def _by_torch(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    k: Any,
    v: Any,
    lengths: Any,
    block_table: Any,
    scale: float,
    window: int,
    softcap: float,
    longest: int,
) -> Any:
    """`longest` is how many rows of keys the longest sequence has, its new ones counted, and 0 if unknown."""
    batch, queries, heads, width = q.shape
    table = block_table.long()
    size = k_cache.shape[1]
    if k is not None:
        rows = lengths.long().view(batch, 1) + torch.arange(queries, device=q.device)
        pages = torch.gather(table, 1, rows // size)
        k_cache[pages, rows % size] = k
        v_cache[pages, rows % size] = v
        lengths = lengths + queries
    if _PAGED and q.is_cuda and softcap == 0.0:
        bounds = torch.arange(0, (batch + 1) * queries, queries, device=q.device, dtype=torch.int32)
        found = varlen_attn(
            q.reshape(batch * queries, heads, width),
            k_cache,
            v_cache,
            bounds,
            None,
            queries,
            table.shape[1] * size,
            scale=scale,
            window_size=(window, 0),
            enable_gqa=heads != k_cache.shape[2],
            seqused_k=lengths.int(),
            block_table=block_table,
        )
        return found.view(batch, queries, heads, width)
    table = table[:, : -(-longest // size)] if longest else table
    keys, values = k_cache[table].flatten(1, 2), v_cache[table].flatten(1, 2)
    return _dense(q, keys, values, lengths, scale, window, softcap, longest)


def flash_attn_func(
    q: Any,
    k: Any,
    v: Any,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **_: Any,
) -> Any:
    """Attention of sequences of one length; a causal one is aligned to the last key."""
    batch, _, heads, width = q.shape
    scale = width**-0.5 if softmax_scale is None else softmax_scale
    if causal:
        lengths = torch.full((batch,), k.shape[1], device=q.device)
        return _dense(q, k, v, lengths, scale, window_size[0], softcap, k.shape[1])
    q, k, v = (each.transpose(1, 2) for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=heads != k.shape[1]).transpose(1, 2)


def flash_attn_varlen_func(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    **_: Any,
) -> Any:
    """Attention of sequences laid end to end, between the bounds given; vision towers ask for it."""
    found = torch.empty_like(q)
    begins, starts = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for at in range(len(begins) - 1):
        queries, keys = slice(begins[at], begins[at + 1]), slice(starts[at], starts[at + 1])
        found[queries] = flash_attn_func(
            q[None, queries], k[None, keys], v[None, keys], softmax_scale=softmax_scale, causal=causal
        )[0]
    return found


def _dense(
    q: Any, keys: Any, values: Any, lengths: Any, scale: float, window: int, softcap: float, longest: int
) -> Any:
    """Of keys that lie in order, of which `lengths` [batch] count; `longest` is the largest of these, 0 if unknown."""
    batch, queries, heads, _ = q.shape
    q, keys, values = (each.transpose(1, 2) for each in (q, keys, values))
    grouped = heads != keys.shape[1]
    if softcap == 0.0 and window < 0 and batch == 1 and longest:
        # No mask has to be written down, so the fastest kernel can be taken.
        keys, values = keys[:, :, :longest], values[:, :, :longest]
        bias = None if queries == 1 else causal_lower_right(queries, longest)
        found = F.scaled_dot_product_attention(q, keys, values, bias, scale=scale, enable_gqa=grouped)
        return found.transpose(1, 2)
    places = torch.arange(keys.shape[2], device=q.device).view(1, 1, -1)
    last = lengths.to(q.device).view(batch, 1, 1) - queries + torch.arange(queries, device=q.device).view(1, -1, 1)
    seen = places <= last
    if window >= 0:
        seen &= places >= last - window
    seen = seen.unsqueeze(1)
    if softcap == 0.0:
        found = F.scaled_dot_product_attention(q, keys, values, seen, scale=scale, enable_gqa=grouped)
        return found.transpose(1, 2)
    times = heads // keys.shape[1]
    if times > 1:
        keys, values = (each.repeat_interleave(times, 1) for each in (keys, values))
    weights = (q @ keys.transpose(-1, -2)).float() * scale
    weights = (softcap * torch.tanh(weights / softcap)).masked_fill(~seen, float("-inf"))
    return (weights.softmax(-1).to(values.dtype) @ values).transpose(1, 2)
