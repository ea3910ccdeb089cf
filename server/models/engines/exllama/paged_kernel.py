"""Attention of new tokens over pages as one Triton kernel, which appends their keys and values on the way.

Flash-Decoding (Dao, Haziza, Massa, Sizov, 2023): the keys of a sequence are shared out to several programs where there
are fewer sequences than the GPU has room for, and what they found is joined by its log-sum-exp. By torch's
own functions pages are copied, or a layer takes a dozen launches, which tells while single tokens are generated. Shapes
are those of `attention`. Importing this module imports Triton.
"""

import contextlib
import functools
import logging
import subprocess
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from triton.runtime.errors import TritonError

log = logging.getLogger(__name__)

MOST_ROWS = 64
"""Queries of one sequence times the heads that share a head of keys: beyond that it is a prompt, and others' work."""
_LEAST_ROWS = 16
"""What the GPU's matrix units take."""
_KEYS, _KEYS_OF_WIDE, _NARROW = 64, 32, 128
"""Rows of keys that are worked on at once, of heads up to 128 wide and of wider ones; a page is a whole number of
them. What they take of a multiprocessor's own memory fits from compute capability 8.0 on."""
_WIDEST = 256
"""Of a head."""
_LEAST_SPAN = 256
"""Keys that are worth a program of their own."""
_MOST_PARTS = 64
_WAVES = 2
"""Programs that a multiprocessor of the GPU should have to choose from."""


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]  # Triton has no types
def _mixed(  # type: ignore[no-untyped-def]  # Triton's constants are in capitals
    asked,
    keys,
    values,
    key,
    last,
    place,
    best,
    total,
    mixed,
    scale,
    softcap,
    window,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
):
    """One more block of keys [WIDE, KEYS] and values [KEYS, WIDE] in the running softmax of each row."""
    weights = tl.dot(asked, keys) * scale
    if CAPPED:
        # tanh by exp of what is not positive, which cannot overflow
        folded = tl.exp(-2.0 * tl.abs(weights / softcap))
        risen = softcap * (1.0 - folded) / (1.0 + folded)
        weights = tl.where(weights < 0, -risen, risen)
    seen = (key < last)[None, :] & (key[None, :] <= place[:, None])
    if WINDOWED:
        seen &= key[None, :] >= place[:, None] - window
    weights = tl.where(seen, weights, float("-inf"))
    higher = tl.maximum(best, tl.max(weights, 1))
    safe = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp(weights - safe[:, None])
    shrunk = tl.exp(best - safe)
    total = total * shrunk + tl.sum(weights, 1)
    mixed = mixed * shrunk[:, None] + tl.dot(weights.to(values.dtype), values)
    return higher, total, mixed


# Whatever a request may change is left general, so that nothing is compiled while one waits.
@triton.jit(  # type: ignore[untyped-decorator, unused-ignore]
    do_not_specialize=["queries", "columns", "span", "parts", "window"],
    do_not_specialize_on_alignment=["table", "lengths"],
)
def _attended(  # type: ignore[no-untyped-def]  # noqa: PLR0915 - one kernel, one function
    q,
    k_new,
    v_new,
    k_cache,
    v_cache,
    table,
    lengths,
    out,
    norms,
    scale,
    softcap,
    window,
    queries,
    columns,
    span,
    parts,
    HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    WIDTH: tl.constexpr,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    WIDE: tl.constexpr,
    KEYS: tl.constexpr,
    APPENDED: tl.constexpr,
    CAPPED: tl.constexpr,
    WINDOWED: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """One sequence, one head of keys, and one part of `span` keys.

    `out` [batch, queries, HEADS, WIDTH]; where SPLIT f32 [batch, parts, queries, HEADS, WIDTH], with `norms` [batch,
    parts, queries, HEADS] the log-sum-exp of each.
    """
    sequence, group, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    times: tl.constexpr = HEADS // GROUPS
    row, column, step = tl.arange(0, ROWS), tl.arange(0, WIDE), tl.arange(0, KEYS)
    query = row // times
    head = group * times + row % times
    wide = column < WIDTH
    here = (query < queries)[:, None] & wide[None, :]
    at = (sequence * queries + query) * HEADS + head
    asked = tl.load(q + at[:, None] * WIDTH + column[None, :], mask=here, other=0.0)
    held = tl.load(lengths + sequence)
    whole = held
    if APPENDED:
        whole += queries
    place = whole - queries + query
    first = part * span
    last = tl.minimum(first + span, whole)
    old = tl.minimum(last, held)
    fresh = tl.maximum(first, held)
    if WINDOWED:
        first = tl.maximum(first, (whole - queries - window) // KEYS * KEYS)
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDE), tl.float32)
    for start in range(first, old, KEYS):
        # Blocks begin at whole multiples of KEYS, so one lies in one page.
        key = start + step
        page = tl.load(table + sequence * columns + start // SIZE).to(tl.int64)
        inside = ((page * SIZE + start % SIZE + step) * GROUPS + group) * WIDTH
        there = key < old
        keys = tl.load(k_cache + inside[None, :] + column[:, None], mask=there[None, :] & wide[:, None], other=0.0)
        values = tl.load(v_cache + inside[:, None] + column[None, :], mask=there[:, None] & wide[None, :], other=0.0)
        best, total, mixed = _mixed(
            asked, keys, values, key, old, place, best, total, mixed, scale, softcap, window, CAPPED, WINDOWED
        )
    if APPENDED:
        for start in range(fresh, last, KEYS):
            key = start + step
            there = key < last
            upright, flat = there[None, :] & wide[:, None], there[:, None] & wide[None, :]
            given = ((sequence * queries + key - held) * GROUPS + group) * WIDTH
            keys = tl.load(k_new + given[None, :] + column[:, None], mask=upright, other=0.0)
            values = tl.load(v_new + given[:, None] + column[None, :], mask=flat, other=0.0)
            page = tl.load(table + sequence * columns + key // SIZE, mask=there, other=0).to(tl.int64)
            inside = ((page * SIZE + key % SIZE) * GROUPS + group) * WIDTH
            tl.store(k_cache + inside[None, :] + column[:, None], keys, mask=upright)
            tl.store(v_cache + inside[:, None] + column[None, :], values, mask=flat)
            best, total, mixed = _mixed(
                asked, keys, values, key, last, place, best, total, mixed, scale, softcap, window, CAPPED, WINDOWED
            )
    mixed = mixed / tl.where(total == 0.0, 1.0, total)[:, None]
    if SPLIT:
        at = ((sequence * parts + part) * queries + query) * HEADS + head
        tl.store(norms + at, best + tl.log(total), mask=query < queries)
    tl.store(out + at[:, None] * WIDTH + column[None, :], mixed.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=["rows", "parts"])  # type: ignore[untyped-decorator, unused-ignore]
def _joined(found, norms, out, rows, parts, WIDTH: tl.constexpr, WIDE: tl.constexpr, PARTS: tl.constexpr):  # type: ignore[no-untyped-def]
    """One query of one head: what its parts found, each by its share of the whole. `rows` are queries x heads."""
    sequence, row = tl.program_id(0).to(tl.int64), tl.program_id(1)
    part, column = tl.arange(0, PARTS), tl.arange(0, WIDE)
    wide = column < WIDTH
    at = (sequence * parts + part) * rows + row
    norm = tl.load(norms + at, mask=part < parts, other=float("-inf"))
    share = tl.exp(norm - tl.max(norm, 0))
    share = share / tl.sum(share, 0)
    there = (part < parts)[:, None] & wide[None, :]
    each = tl.load(found + at[:, None] * WIDTH + column[None, :], mask=there, other=0.0)
    whole = tl.sum(each * share[:, None], 0)
    tl.store(out + (sequence * rows + row) * WIDTH + column, whole.to(out.dtype.element_ty), mask=wide)


def takes(q: Any, k_cache: Any) -> bool:
    """Whether a call is one of new tokens that this kernel is made for."""
    _, queries, heads, width = q.shape
    size, groups = k_cache.shape[1:3]
    few = queries * (heads // groups) <= MOST_ROWS
    return bool(few and width <= _WIDEST and size % _LEAST_ROWS == 0 and k_cache.is_contiguous())


def attend(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    k: Any,
    v: Any,
    lengths: Any,
    table: Any,
    scale: float,
    window: int,
    softcap: float,
    longest: int,
    parts: int | None = None,
) -> Any:
    """As `attention.flash_attn_with_kvcache`. `longest` is how many rows of keys the longest sequence has, its new
    ones counted, and 0 where that is not known; `parts` how many programs share a sequence, None for what fits."""
    batch, queries, heads, width = q.shape
    size, groups = k_cache.shape[1:3]
    columns = table.shape[1]
    rows = longest or columns * size
    wide = triton.next_power_of_2(width)
    keys = min(_KEYS if wide <= _NARROW else _KEYS_OF_WIDE, size & -size)
    # Triton launches on the current device, and a model may be spread over several.
    here = torch.cuda.device(q.device) if q.is_cuda else contextlib.nullcontext()
    least = max(_LEAST_ROWS, triton.next_power_of_2(queries * (heads // groups)))
    constants = heads, groups, width, size, least, wide, keys, k is not None, softcap != 0.0, window >= 0
    q, table = q.contiguous(), table.contiguous()
    if k is not None:
        k, v = k.contiguous(), v.contiguous()
    counts = [_parts(rows, batch * groups, _multiprocessors(q.device)) if parts is None else parts]
    if constants not in _compiled:
        # Both ways at the first call, which is while a model is loaded: the same rows are appended, and that is all.
        _compiled.add(constants)
        counts.insert(0, 1 if counts[0] > 1 else 2)
    out = torch.empty_like(q)
    for count in counts:
        span = -(-rows // (count * keys)) * keys
        found, norms = out, out
        if count > 1:
            found = torch.empty((batch, count, queries, heads, width), dtype=torch.float32, device=q.device)
            norms = torch.empty((batch, count, queries, heads), dtype=torch.float32, device=q.device)
        tensors = q, q if k is None else k, q if v is None else v, k_cache, v_cache, table, lengths, found, norms
        with here:
            _attended[(batch, groups, count)](
                *tensors, scale, softcap, window, queries, columns, span, count, *constants, count > 1
            )
            if count > 1:
                each = queries * heads
                _joined[(batch, each)](found, norms, out, each, count, width, wide, _MOST_PARTS)
    return out


def _parts(rows: int, programs: int, multiprocessors: int) -> int:
    """How many parts each sequence is shared out to, so that the whole GPU has work and no part is too small."""
    wanted = -(-_WAVES * multiprocessors // programs)
    return max(1, min(_MOST_PARTS, wanted, -(-rows // _LEAST_SPAN)))


_compiled: set[tuple[Any, ...]] = set()
"""The constants of kernels that were launched before."""


@functools.cache
def _multiprocessors(device: Any) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


# ---- whether it is used ---------------------------------------------------------------------------------------------

_SHAPES = ((1, 32, 8), (1, 32, 32), (8, 32, 8))
"""Sequences, heads and heads of keys of the trial."""
_LENGTH, _WIDTH, _PAGE = 1000, 128, 256
_NEAR = 2e-3
_ROUNDS, _CALLS = 5, 20


def objection(by_torch: Callable[..., Any], device: Any) -> str | None:
    """Why new tokens are better left to `by_torch` on this GPU, as a short trial finds; None where they are not.

    `by_torch` is called as `attend` is.
    """
    spent = [0.0, 0.0]
    rest = {"scale": _WIDTH**-0.5, "window": -1, "softcap": 0.0, "longest": _LENGTH + 1}
    try:
        for batch, heads, groups in _SHAPES:
            given = _drawn(batch, heads, groups, device)
            ways = [functools.partial(call, *given, **rest) for call in (attend, by_torch)]
            one, other = (way().float() for way in ways)
            if not (one - other).abs().max().item() < _NEAR:
                return "the Triton kernel computes wrongly here"
            for at, way in enumerate(ways):
                spent[at] += _seconds(way)
    except (TritonError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"the Triton kernel does not run here: {first}"
    log.info("attention of new tokens: %.3f ms by Triton, %.3f ms by torch", *(1000 * each for each in spent))
    return None if spent[0] < spent[1] else "torch is faster here"


def _drawn(batch: int, heads: int, groups: int, device: Any) -> Any:
    """What `attend` takes first: queries, caches, new keys and values, lengths and table."""

    def numbers(*shape: int) -> Any:
        return torch.randn(*shape, device=device, dtype=torch.float16)

    pages = -(-(_LENGTH + 1) // _PAGE)
    caches = (numbers(batch * pages, _PAGE, groups, _WIDTH) for _ in "kv")
    table = torch.randperm(batch * pages, device=device, dtype=torch.int32).view(batch, pages)
    lengths = torch.full((batch,), _LENGTH, device=device, dtype=torch.int32)
    new = (numbers(batch, 1, groups, _WIDTH) for _ in "kv")
    return (numbers(batch, 1, heads, _WIDTH), *caches, *new, lengths, table)


def _seconds(call: Callable[[], Any]) -> float:
    """Of one call when many follow each other: the best of some rounds."""
    call()
    best = float("inf")
    for _ in range(_ROUNDS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        for _ in range(_CALLS):
            call()
        ended.record()
        ended.synchronize()
        best = min(best, begun.elapsed_time(ended) / 1000 / _CALLS)
    return best
