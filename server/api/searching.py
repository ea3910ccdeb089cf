"""One search over several collections with several queries: what `/v1/retrieve` and vector stores have in common."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from server.errors import InvalidValue
from server.knowledge import Collection, Filter, Found, Hit
from server.knowledge.fuse import weighted_sum
from server.runtime import Mode, Runtime

MOST = 1000
"""How far pages reach: what a collection ranks at once."""
_PAGE = re.compile(r"page_([0-9]{1,6})")
_GROUPED = 200
"""Chunks that are ranked at least where they are gathered by file: a file's many chunks leave room for other files."""


@dataclass(frozen=True)
class Search:
    """What is asked. `k` counts chunks, or files where they are gathered; `page` continues an earlier answer."""

    queries: Sequence[str]
    collections: Sequence[Collection]
    k: int
    mode: Mode | None = None
    filters: Filter | None = None
    weights: tuple[float, float] | None = None
    threshold: float = 0.0
    by_file: bool = False
    max_tokens: int | None = None
    page: str | None = None


@dataclass(frozen=True)
class Results:
    """`groups` are nearest first: chunks by themselves, or those of one file together, its nearest first.

    `found` are the searches, all queries of a collection together, in the order of `Search`.
    """

    groups: list[list[Hit]]
    next_page: str | None
    found: list[Found]

    @property
    def tokens(self) -> int:
        """Embedded for the queries."""
        return sum(each.tokens for each in self.found)

    @property
    def timings_ms(self) -> dict[str, float]:
        """Of the slowest search of each leg."""
        slowest: dict[str, float] = {}
        for each in self.found:
            for leg, spent in each.timings_ms.items():
                slowest[leg] = max(slowest.get(leg, 0.0), round(spent, 3))
        return slowest


async def search(runtime: Runtime, asked: Search) -> Results:
    """Raises InvalidValue, KnowledgeUnavailable, or what the model that embeds raises."""
    first = _offset(asked.page)
    wanted = first + asked.k + 1  # one more tells whether there is a next page
    if wanted > MOST + 1:
        raise InvalidValue(f"Pages reach as far as {MOST} results.", param="page")
    depth = min(MOST, max(wanted, _GROUPED) if asked.by_file else wanted)
    found = await asyncio.gather(
        *(
            runtime.search(each, query, k=depth, mode=asked.mode, filters=asked.filters, weights=asked.weights)
            for each in asked.collections
            for query in asked.queries
        )
    )
    hits = _nearest(_comparable(asked, found), asked.threshold)
    groups = _by_file(hits) if asked.by_file else [[hit] for hit in hits]
    shown = _fitting(groups[first : first + asked.k], asked.max_tokens)
    more = bool(shown) and len(groups) > first + len(shown)
    return Results(shown, f"page_{first + len(shown)}" if more else None, found)


def _offset(page: str | None) -> int:
    found = _PAGE.fullmatch(page or "page_0")
    if found is None:
        raise InvalidValue("`page` should be the `next_page` of an earlier answer.", param="page")
    return int(found[1])


def _comparable(asked: Search, found: Sequence[Found]) -> list[Hit]:
    """Every hit, with scores that mean the same in all collections.

    A hybrid score is a share of the best of its own search. Of several collections with one embedding model the raw
    scores are brought to the best of all of them instead; across models they would mean nothing.
    """
    alike = len({each.spec.embed for each in asked.collections}) == 1 < len(asked.collections)
    hybrid = all((asked.mode or each.spec.search.mode) == "hybrid" for each in asked.collections)
    if not alike or not hybrid:
        return [hit for each in found for hit in each.hits]
    width = len(asked.queries)
    return [hit for n in range(width) for hit in _fused(asked, [hit for each in found[n::width] for hit in each.hits])]


def _fused(asked: Search, hits: Sequence[Hit]) -> list[Hit]:
    """One query's hits in all collections."""
    legs = [{_key(hit): hit.scores[leg] for hit in hits if leg in hit.scores} for leg in ("vector", "text")]
    scores = weighted_sum(list(zip(legs, asked.weights or (1.0, 1.0), strict=True)))
    return [msgspec.structs.replace(hit, score=scores[_key(hit)]) for hit in hits]


def _key(hit: Hit) -> str:
    """A file that lies in two collections has the same chunks in both."""
    return f"{hit.collection}/{hit.id}"


def _nearest(hits: Iterable[Hit], threshold: float) -> list[Hit]:
    """Each chunk once, under its best score, nearest first."""
    best: dict[str, Hit] = {}
    for hit in hits:
        key = _key(hit)
        if hit.score >= threshold and (key not in best or hit.score > best[key].score):
            best[key] = hit
    return sorted(best.values(), key=lambda hit: -hit.score)


def _by_file(hits: Sequence[Hit]) -> list[list[Hit]]:
    groups: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.collection, hit.document_id), []).append(hit)
    return list(groups.values())


def _fitting(groups: list[list[Hit]], max_tokens: int | None) -> list[list[Hit]]:
    """As many of the nearest as the budget holds."""
    if max_tokens is None:
        return groups
    spent = accumulate(sum(hit.token_count for hit in group) for group in groups)
    return [group for group, total in zip(groups, spent, strict=True) if total <= max_tokens]
