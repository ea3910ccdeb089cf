"""Attention over pages against a plain one in f64: every sequence by itself, key by key."""

import math
from typing import Any

import pytest

from tests.making.oracle import needs_torch

pytestmark = needs_torch

SIZE = 16


def _plain(q: Any, keys: Any, values: Any, window: int, softcap: float) -> Any:
    """q [queries, heads, width] of the newest rows of keys and values [rows, key heads, width]."""
    import torch

    queries, heads, width = q.shape
    rows, groups = keys.shape[:2]
    found = torch.empty_like(q)
    for at in range(queries):
        last = rows - queries + at
        first = 0 if window < 0 else max(0, last - window)
        for head in range(heads):
            group = head // (heads // groups)
            weights = keys[first : last + 1, group] @ q[at, head] / math.sqrt(width)
            if softcap:
                weights = softcap * torch.tanh(weights / softcap)
            found[at, head] = weights.softmax(0) @ values[first : last + 1, group]
    return found


@pytest.mark.parametrize("known", [True, False], ids=["length known", "length asked of the pages"])
@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (7, 0.0), (7, 5.0)])
@pytest.mark.parametrize(("batch", "queries"), [(1, 1), (1, 21), (3, 1), (3, 5)])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("appended", [True, False])
def test_it_is_causal_attention_of_each_sequence(
    batch: int, queries: int, groups: int, window: int, softcap: float, appended: bool, known: bool
) -> None:
    import torch

    from server.models.engines.exllama import attention

    drawn = torch.Generator().manual_seed(batch * 100 + queries * 10 + groups)

    def numbers(*shape: int) -> Any:
        return torch.randn(*shape, generator=drawn, dtype=torch.float64)

    heads, width, many = 4, 8, 32
    lengths = [queries + int(torch.randint(0, 40, (1,), generator=drawn)) for _ in range(batch)]
    k_cache, v_cache = numbers(many, SIZE, groups, width), numbers(many, SIZE, groups, width)
    table = torch.randperm(many, generator=drawn)[: batch * 6].view(batch, 6).int()
    q, new_k, new_v = numbers(batch, queries, heads, width), *(numbers(batch, queries, groups, width) for _ in "kv")
    exact = []
    for at, length in enumerate(lengths):
        pages = table[at].long()
        keys, values = k_cache[pages].flatten(0, 1)[:length].clone(), v_cache[pages].flatten(0, 1)[:length].clone()
        if appended:
            keys[length - queries :], values[length - queries :] = new_k[at], new_v[at]
        exact.append(_plain(q[at], keys, values, window, softcap))
    before = torch.tensor(lengths, dtype=torch.int32) - (queries if appended else 0)
    attention._longest.rows = max(lengths) if known else 0
    found = attention.flash_attn_with_kvcache(
        q,
        k_cache,
        v_cache,
        *((new_k, new_v) if appended else ()),
        cache_seqlens=before,
        block_table=table,
        window_size=(window, window),
        softcap=softcap,
    )
    attention._longest.rows = 0
    # With a cap the weights are computed in f32.
    assert torch.allclose(found, torch.stack(exact), atol=1e-5 if softcap else 1e-9)


def test_sequences_laid_end_to_end_do_not_see_each_other() -> None:
    import torch

    from server.models.engines.exllama import attention

    drawn = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(10, 2, 8, generator=drawn, dtype=torch.float64) for _ in range(3))
    bounds = torch.tensor([0, 4, 10])
    found = attention.flash_attn_varlen_func(q, k, v, bounds, bounds, 6, 6, causal=True)
    exact = torch.cat([_plain(q[a:b], k[a:b], v[a:b], -1, 0.0) for a, b in ((0, 4), (4, 10))])
    assert torch.allclose(found, exact, atol=1e-9)
    both = attention.flash_attn_func(q[None, :4], k[None, :4], v[None, :4], causal=False)
    assert not torch.allclose(both[0, 0], exact[0])
