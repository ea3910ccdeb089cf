"""`/v1/retrieve`: search over collections, without a chat model."""

import asyncio
from secrets import token_hex
from typing import Any

from litestar import Request, post

from server.api.decode import decode
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire import (
    RetrievalPage,
    RetrievedChunk,
    RetrieveRequest,
    RetrieveUsage,
    Span,
    TextContent,
)
from server.errors import CollectionNotFound
from server.knowledge import Collection, Filter, Found, Hit, parse_filter
from server.runtime import Runtime


@post(
    ["/v1/retrieve", "/retrieve"],
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(RetrieveRequest, RetrievalPage, summary="Search collections"),
)
async def retrieve(request: Request[Any, Any, Any]) -> Reply:
    asked, _ = await decode(request, RetrieveRequest)
    runtime: Runtime = request.app.state["runtime"]
    collections = [runtime.collection(name) for name in dict.fromkeys(asked.collections or runtime.shelves)]
    if not collections:
        raise CollectionNotFound("This server declares no collections.", param="collections")
    queries = [asked.query] if isinstance(asked.query, str) else asked.query
    filters = None if asked.filters is None else parse_filter(asked.filters)
    found = await asyncio.gather(
        *(_search(runtime, each, query, asked, filters) for each in collections for query in queries)
    )
    limit = asked.k or max(each.spec.search.k for each in collections)
    page = _page(queries, collections, found, _nearest(found, asked)[:limit])
    return json(page)


async def _search(
    runtime: Runtime, collection: Collection, query: str, asked: RetrieveRequest, filters: Filter | None
) -> Found:
    hybrid = asked.ranking_options.hybrid_search if asked.ranking_options else None
    weights = (hybrid.embedding_weight, hybrid.text_weight) if hybrid else None
    return await runtime.search(collection, query, k=asked.k, mode=asked.mode, filters=filters, weights=weights)


def _nearest(found: list[Found], asked: RetrieveRequest) -> list[Hit]:
    """Each chunk once, under its best score, nearest first."""
    threshold = (asked.ranking_options.score_threshold if asked.ranking_options else None) or 0.0
    best: dict[tuple[str, str], Hit] = {}
    for each in found:
        for hit in each.hits:
            key = (hit.collection, hit.id)
            if hit.score >= threshold and (key not in best or hit.score > best[key].score):
                best[key] = hit
    return sorted(best.values(), key=lambda hit: -hit.score)


def _page(queries: list[str], collections: list[Collection], found: list[Found], hits: list[Hit]) -> RetrievalPage:
    timings: dict[str, float] = {}
    for each in found:
        for leg, spent in each.timings_ms.items():
            timings[leg] = max(timings.get(leg, 0.0), round(spent, 3))
    return RetrievalPage(
        object="retrieval.page",
        id=f"rtv_{token_hex(16)}",
        search_query=queries,
        data=[_chunk(hit, number) for number, hit in enumerate(hits, start=1)],
        usage=RetrieveUsage(sum(each.tokens for each in found)),
        timings_ms=timings,
        index_version={collection.name: found[at * len(queries)].version for at, collection in enumerate(collections)},
        has_more=False,
    )


def _chunk(hit: Hit, number: int) -> RetrievedChunk:
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
        content=[TextContent("text", hit.text)],
        span=Span(hit.start, hit.end),
        token_count=hit.token_count,
        citation=number,
    )
