"""`/v1/retrieve`: search over collections, without a chat model."""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from litestar import Request, post
from msgspec import UNSET

from server.api.decode import decode
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire import HybridWeights, RankingOptions
from server.api.wire_retrieve import (
    Explained,
    FoundChunk,
    LegConfidence,
    LegRanks,
    RetrievalPage,
    RetrievedChunk,
    RetrieveRequest,
    RetrieveUsage,
    Span,
    TextContent,
)
from server.chat.search import Results, Search, search
from server.errors import CollectionNotFound, InvalidValue
from server.knowledge import Collection, Found, Hit, parse_filter
from server.runtime import NO_RANKER, Runtime


@post(
    ["/v1/retrieve", "/retrieve"],
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(RetrieveRequest, RetrievalPage, summary="Search collections"),
)
async def retrieve(request: Request[Any, Any, Any]) -> Reply:
    body, _ = await decode(request, RetrieveRequest)
    return json(await retrieved(request.app.state["runtime"], body))


async def retrieved(runtime: Runtime, body: RetrieveRequest) -> RetrievalPage:
    """The answer to `body`. Raises InvalidValue, CollectionNotFound, or what a model or the store raises."""
    asked = _asked(runtime, body)
    found = await search(runtime, asked)
    page = RetrievalPage(
        object="retrieval.page",
        id=f"rtv_{token_hex(16)}",
        search_query=list(asked.queries),
        data=[_chunk(group, number, asked.by_file) for number, group in enumerate(found.groups, start=1)],
        usage=RetrieveUsage(found.tokens, found.rerank_tokens or UNSET),
        timings_ms=found.timings_ms,
        index_version={
            each.name: found.found[at * len(asked.queries)].version for at, each in enumerate(asked.collections)
        },
        has_more=found.next_page is not None,
        next_page=found.next_page,
    )
    include = body.include or ()
    if "vector" in include:
        await _add_vectors(asked, page.data)
    if "explain" in include:
        page.explain = _explained(asked, found)
    return page


def _asked(runtime: Runtime, body: RetrieveRequest) -> Search:
    collections = [runtime.collection(name) for name in dict.fromkeys(body.collections or runtime.shelves)]
    if not collections:
        raise CollectionNotFound("This server declares no collections.", param="collections")
    ranking = body.ranking_options or RankingOptions()
    hybrid = ranking.hybrid_search
    return Search(
        queries=[body.query] if isinstance(body.query, str) else body.query,
        collections=collections,
        k=body.k or max(each.spec.search.k for each in collections),
        mode=body.mode,
        filters=None if body.filters is None else parse_filter(body.filters),
        weights=None if hybrid is None else (hybrid.embedding_weight, hybrid.text_weight),
        ranker=ranking.ranker,
        depth=ranking.depth,
        neighbours=_neighbours(body),
        as_of=_versions(body, collections),
        tiers=body.tiers,
        threshold=ranking.score_threshold or 0.0,
        by_file=body.group_by == "file",
        max_tokens=body.max_tokens,
        page=body.page,
    )


def _neighbours(body: RetrieveRequest) -> int:
    if body.neighbours and body.group_by is not None:
        message = "`neighbours` widens single chunks: leave it out where they are gathered by file."
        raise InvalidValue(message, param="neighbours")
    return body.neighbours or 0


def _versions(body: RetrieveRequest, collections: Sequence[Collection]) -> dict[str, int]:
    names = [each.name for each in collections]
    if isinstance(body.as_of, int):
        if len(names) > 1:
            message = f"Versions are of one collection: give `as_of` as an object with {', '.join(names)}."
            raise InvalidValue(message, param="as_of")
        return {names[0]: body.as_of}
    found = body.as_of or {}
    if unknown := next((name for name in found if name not in names), None):
        raise InvalidValue(f"`{unknown[:200]}` is not among the collections that are searched.", param="as_of")
    return found


def _chunk(group: Sequence[Hit], number: int, by_file: bool) -> RetrievedChunk:
    hit = group[0]
    beside = [
        FoundChunk(each.id, round(each.score, 6), Span(each.start, each.end, each.page), each.token_count)
        for each in group
    ]
    return RetrievedChunk(
        object="retrieval.chunk",
        id=hit.id,
        collection=hit.collection,
        file_id=hit.document_id,
        document_id=hit.document_id,
        filename=hit.filename,
        uri=hit.uri,
        title=hit.title,
        heading=hit.heading,
        score=round(hit.score, 6),
        scores={name: round(score, 6) for name, score in hit.scores.items()},
        attributes=dict(hit.attributes),
        licence=hit.licence,
        content=[TextContent("text", each.text) for each in group],
        span=Span(hit.start, hit.end, hit.page),
        token_count=sum(each.token_count for each in group),
        citation=number,
        chunks=beside if by_file else UNSET,
        tier="cold" if hit.tier == "cold" else UNSET,
    )


async def _add_vectors(asked: Search, chunks: Sequence[RetrievedChunk]) -> None:
    """A chunk that was written anew since the search has none."""
    for collection in asked.collections:
        mine = [chunk for chunk in chunks if chunk.collection == collection.name]
        vectors = await collection.vectors([chunk.id for chunk in mine])
        for chunk in mine:
            chunk.vector = vectors.get(chunk.id, UNSET)


def _explained(asked: Search, found: Results) -> list[Explained]:
    shown = [(hit.collection, hit.id) for group in found.groups for hit in group]
    pairs = [(collection, query) for collection in asked.collections for query in asked.queries]
    return [
        Explained(
            collection=collection.name,
            query=query,
            mode=each.mode,
            weights=HybridWeights(*(round(weight, 4) for weight in each.weights)),
            filter=None if asked.filters is None else collection.condition(asked.filters),
            considered=len(each.hits),
            timings_ms={leg: round(spent, 3) for leg, spent in each.timings_ms.items()},
            confidence=LegConfidence(collection.confidence.vector, collection.confidence.text),
            ranker=_ranker(asked, collection),
            ranks={key: _ranks(each, key) for name, key in shown if name == collection.name},
            note=each.note or UNSET,
            **_tiers(collection, each),
        )
        for (collection, query), each in zip(pairs, found.found, strict=True)
    ]


def _tiers(collection: Collection, found: Found) -> dict[str, Any]:
    """Which were searched, where the recipe has some to choose from."""
    told: dict[str, Any] = {"kept": True} if found.is_kept else {}
    if collection.tier is not None:
        told |= {"tiers": list(found.tiers), "cold": found.why or UNSET}
    return told


def _ranker(asked: Search, collection: Collection) -> str | None:
    name = asked.ranker or collection.spec.search.rerank
    return None if name == NO_RANKER else name


def _ranks(found: Found, key: str) -> LegRanks:
    vector, text = (found.places.get(leg, {}).get(key) for leg in ("vector", "text"))
    return LegRanks(vector, text)
