"""`/v1/retrieve`: search over collections, without a chat model."""

from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from litestar import Request, post
from msgspec import UNSET

from server.api.decode import decode
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.searching import Results, Search, search
from server.api.wire_retrieve import (
    Explained,
    FoundChunk,
    HybridWeights,
    RankingOptions,
    RetrievalPage,
    RetrievedChunk,
    RetrieveRequest,
    RetrieveUsage,
    Span,
    TextContent,
)
from server.errors import CollectionNotFound
from server.knowledge import Hit, parse_filter
from server.runtime import Runtime


@post(
    ["/v1/retrieve", "/retrieve"],
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(RetrieveRequest, RetrievalPage, summary="Search collections"),
)
async def retrieve(request: Request[Any, Any, Any]) -> Reply:
    body, _ = await decode(request, RetrieveRequest)
    runtime: Runtime = request.app.state["runtime"]
    asked = _asked(runtime, body)
    found = await search(runtime, asked)
    page = RetrievalPage(
        object="retrieval.page",
        id=f"rtv_{token_hex(16)}",
        search_query=list(asked.queries),
        data=[_chunk(group, number, asked.by_file) for number, group in enumerate(found.groups, start=1)],
        usage=RetrieveUsage(found.tokens),
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
    return json(page)


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
        threshold=ranking.score_threshold or 0.0,
        by_file=body.group_by == "file",
        max_tokens=body.max_tokens,
        page=body.page,
    )


def _chunk(group: Sequence[Hit], number: int, by_file: bool) -> RetrievedChunk:
    hit = group[0]
    beside = [FoundChunk(each.id, round(each.score, 6), Span(each.start, each.end), each.token_count) for each in group]
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
        content=[TextContent("text", each.text) for each in group],
        span=Span(hit.start, hit.end),
        token_count=sum(each.token_count for each in group),
        citation=number,
        chunks=beside if by_file else UNSET,
    )


async def _add_vectors(asked: Search, chunks: Sequence[RetrievedChunk]) -> None:
    """A chunk that was written anew since the search has none."""
    for collection in asked.collections:
        mine = [chunk for chunk in chunks if chunk.collection == collection.name]
        vectors = await collection.vectors([chunk.id for chunk in mine])
        for chunk in mine:
            chunk.vector = vectors.get(chunk.id, UNSET)


def _explained(asked: Search, found: Results) -> list[Explained]:
    weights = HybridWeights(*(asked.weights or (1.0, 1.0)))
    pairs = [(collection, query) for collection in asked.collections for query in asked.queries]
    return [
        Explained(
            collection=collection.name,
            query=query,
            mode=asked.mode or collection.spec.search.mode,
            weights=weights,
            filter=None if asked.filters is None else collection.condition(asked.filters),
            considered=len(each.hits),
            timings_ms={leg: round(spent, 3) for leg, spent in each.timings_ms.items()},
        )
        for (collection, query), each in zip(pairs, found.found, strict=True)
    ]
