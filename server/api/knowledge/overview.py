"""`/v1/knowledge`: each collection's documents, indices, sources and upkeep, and the files it did not take."""

import asyncio
from hashlib import blake2b
from typing import Any

from litestar import Request, route

from config.knowledge import CollectionSpec
from server.api.auth import KeyRing
from server.api.decode import ignored
from server.api.document import documented
from server.api.knowledge.wire import (
    KnowledgeCollection,
    KnowledgeCollectionList,
    KnowledgeRefused,
    KnowledgeRefusedList,
    KnowledgeSource,
)
from server.api.listing import READ, ListQuery, asked, ends, page
from server.api.reply import Reply, json
from server.errors import KnowledgeUnavailable
from server.knowledge import CollectionStatus, Overview, RefusedFile, Shelf, SourceState, Upkeep
from server.runtime import Runtime

_KNOWLEDGE = ["/v1/knowledge", "/knowledge"]
_COLLECTION = [f"{path}/{{collection:str}}" for path in _KNOWLEDGE]
_REFUSED = [f"{path}/refused" for path in _COLLECTION]
_FAULTS = ("400", "401", "403", "404", "405", "429", "500", "503")


@route(
    _KNOWLEDGE,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, KnowledgeCollectionList, summary="List the collections", faults=_FAULTS),
)
async def list_collections(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    told = _tells_texts(request)
    found = await asyncio.gather(*(_described(shelf, told) for shelf in runtime.shelves.values()))
    return json(KnowledgeCollectionList(list(found)))


@route(
    _COLLECTION,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, KnowledgeCollection, summary="Describe one collection", faults=_FAULTS),
)
async def show_collection(request: Request[Any, Any, Any], collection: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return json(await _described(runtime.shelf(collection), _tells_texts(request)))


@route(
    _REFUSED,
    http_method=READ,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(
        None, KnowledgeRefusedList, query=ListQuery, summary="List the files a collection did not take", faults=_FAULTS
    ),
)
async def list_refused(request: Request[Any, Any, Any], collection: str) -> Reply:
    query, unknown = asked(request, ListQuery)
    runtime: Runtime = request.app.state["runtime"]
    refused = runtime.shelf(collection).refused
    every = [] if refused is None else [shown_refused(each) for each in await refused.every()]
    found, has_more = page(every, query, lambda each: each.id)
    listed = KnowledgeRefusedList(found, *ends([each.id for each in found]), has_more)
    return json(listed, headers=ignored(unknown))


async def _described(shelf: Shelf, texts: bool) -> KnowledgeCollection:
    """`texts` says whether faults are told in words, and sources by their names."""
    refused = 0 if shelf.refused is None else await shelf.refused.count()
    letters = {} if shelf.current is None else await shelf.current.letters.count()
    try:
        collection = shelf.collection
        status, kept, indices = await asyncio.gather(collection.status(), collection.look(), collection.indices())
        held = Overview(status.version, kept, indices)
    except KnowledgeUnavailable:  # being opened, or failed, as its state says
        status, held = None, None
    return shown(
        shelf.name,
        shelf.spec,
        state=shelf.state,
        error=_error(shelf, status) if texts else None,
        held=held,
        sources={each.source: each for each in shelf.sources},
        letters=letters,
        refused=refused,
        texts=texts,
    )


def _error(shelf: Shelf, status: CollectionStatus | None) -> str | None:
    error = shelf.error or (None if status is None else status.error)
    return None if status is not None and error == status.upkeep.error else error


def shown(
    name: str,
    spec: CollectionSpec,
    *,
    state: str,
    error: str | None,
    held: Overview | None,
    sources: dict[str, SourceState],
    letters: dict[str, int],
    refused: int,
    texts: bool,
) -> KnowledgeCollection:
    """One collection as the wire tells it; `held` is None while its table is not open."""
    kept = Upkeep() if held is None else held.upkeep
    return KnowledgeCollection(
        id=name,
        state=state,
        error=error,
        embed=spec.embed,
        documents=None if held is None else kept.documents,
        chunks=None if held is None else kept.chunks,
        version=None if held is None else held.version,
        bytes=None if held is None else kept.bytes,
        fragments=None if held is None else kept.fragments,
        unindexed=None if held is None else kept.unindexed,
        versions=None if held is None else kept.versions,
        hot=None if held is None else kept.hot,
        cold=None if held is None else kept.cold,
        indices=None if held is None else held.indices,
        rebuild=kept.rebuild,
        sources=[
            _source(sources.get(each.name) or SourceState(each.name, "at_start"), n, letters.get(each.name, 0), texts)
            for n, each in enumerate(spec.sources)
        ],
        dead_letters=sum(letters.values()),
        refused=refused,
        failures=kept.failures,
        maintenance_error=kept.error if texts else None,
    )


def _source(of: SourceState, n: int, letters: int, texts: bool) -> KnowledgeSource:
    """Which file or topic it is, is told as faults are."""
    name, error = (of.source, of.error) if texts else (f"{of.source.partition(':')[0]}:{n}", None)
    return KnowledgeSource(name, of.state, error, of.messages, of.refused, of.lag_seconds, of.behind, of.last, letters)


def shown_refused(of: RefusedFile) -> KnowledgeRefused:
    """Its id is made of what it is, so that a page can begin after it."""
    name = blake2b(f"{of.brought}\0{of.uri}".encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    return KnowledgeRefused(f"refused-{name}", of.uri, of.brought, of.reason, int(of.at))


def _tells_texts(request: Request[Any, Any, Any]) -> bool:
    ring: KeyRing = request.app.state["keys"]
    return ring.opens(request.headers, "admin")


ROUTES = [list_collections, show_collection, list_refused]
