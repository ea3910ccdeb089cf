"""One search over several collections with several queries, the same for turns, `/v1/retrieve` and vector stores."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate

import msgspec

from server.errors import InvalidValue
from server.knowledge import Collection, Filter, Found, Hit, TierName
from server.knowledge.fuse import Scale, fused
from server.runtime import Mode, Runtime

MOST = 1000
"""How far pages reach: what a collection ranks at once."""
_PAGE = re.compile(r"page_([0-9]{1,6})")
_GROUPED = 200
"""Chunks that are ranked at least where they are gathered by file: a file's many chunks leave room for other files."""


@dataclass(frozen=True)
class Search:
    """What is asked. `k` counts chunks, or files where they are gathered; `page` continues an earlier answer.

    `tiers` are those that are searched; None leaves it to how good the local answer is.
    `as_of` holds the earlier version of each collection that is to be searched in one. `ranker` and `depth` are as in
    `Runtime.search`, and with `neighbours` each chunk is widened by that many before and after it.
    """

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
    as_of: Mapping[str, int] = field(default_factory=dict)
    tiers: Sequence[TierName] | None = None
    ranker: str | None = None
    depth: int | None = None
    neighbours: int = 0


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
    def rerank_tokens(self) -> int:
        """Read by the models that put it in order."""
        return sum(each.rerank_tokens for each in self.found)

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
    most = min(MOST, max(wanted, _GROUPED) if asked.by_file else wanted)
    found = await asyncio.gather(
        *(_one(runtime, asked, each, query, most) for each in asked.collections for query in asked.queries)
    )
    hits = _nearest(_comparable(asked, found), asked.threshold)
    groups = _by_file(hits) if asked.by_file else [[hit] for hit in hits]
    shown = _fitting(await _widened(asked, groups[first : first + asked.k]), asked.max_tokens)
    for collection in asked.collections:
        collection.read([hit for group in shown for hit in group if hit.collection == collection.name])
    more = bool(shown) and len(groups) > first + len(shown)
    return Results(shown, f"page_{first + len(shown)}" if more else None, found)


async def _one(runtime: Runtime, asked: Search, collection: Collection, query: str, most: int) -> Found:
    return await runtime.search(
        collection,
        query,
        k=most,
        mode=asked.mode,
        filters=asked.filters,
        weights=asked.weights,
        as_of=asked.as_of.get(collection.name),
        tiers=asked.tiers,
        ranker=asked.ranker,
        # The same for every page, so that pages are parts of one order.
        depth=max(asked.depth or collection.spec.search.rerank_depth, asked.k),
    )


async def _widened(asked: Search, groups: list[list[Hit]]) -> list[list[Hit]]:
    if not asked.neighbours:
        return groups
    hits = [hit for group in groups for hit in group]
    wide: dict[str, Hit] = {}
    for each in asked.collections:
        mine = [hit for hit in hits if hit.collection == each.name]
        found = await each.widened(mine, asked.neighbours, asked.as_of.get(each.name))
        wide |= {_key(hit): hit for hit in found}
    return [[wide[_key(hit)] for hit in group] for group in groups]


def _offset(page: str | None) -> int:
    found = _PAGE.fullmatch(page or "page_0")
    if found is None:
        raise InvalidValue("`page` should be the `next_page` of an earlier answer.", param="page")
    return int(found[1])


def _comparable(asked: Search, found: Sequence[Found]) -> list[Hit]:
    """Every hit, with scores that mean the same in all collections.

    A hybrid score measures words by the best of its own search. Of several collections with one embedding model they
    are measured by the best of all of them instead; across models that would mean nothing.
    """
    alike = len({each.spec.embed for each in asked.collections}) == 1 < len(asked.collections)
    hybrid = all((asked.mode or each.spec.search.mode) == "hybrid" for each in asked.collections)
    if not alike or not hybrid or any("rerank" in hit.scores for each in found for hit in each.hits):
        return [hit for each in found for hit in each.hits]
    width = len(asked.queries)
    return [hit for n in range(width) for hit in _fused(found[n::width])]


def _fused(found: Sequence[Found]) -> list[Hit]:
    """One query's hits in all collections."""
    all_of_them = reduce(Scale.beside, (each.scale for each in found))
    return [hit for each in found for hit in _measured(each, each.scale.beside(all_of_them))]


def _measured(found: Found, scale: Scale) -> list[Hit]:
    legs = [{hit.id: hit.scores[leg] for hit in found.hits if leg in hit.scores} for leg in ("vector", "text")]
    scores = fused(legs[0], legs[1], found.weights, scale)
    return [msgspec.structs.replace(hit, score=scores[hit.id]) for hit in found.hits]


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
