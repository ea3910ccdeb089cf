"""`/v1/vector_stores`: which there are, and their lives."""

import asyncio
import time
from typing import Any

from litestar import Request, delete, post, route
from msgspec import UNSET, UnsetType

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.listing import READ, ListQuery, asked, ends, page
from server.api.reply import Reply, json
from server.api.vector_stores.shown import FAULTS, chunk_of, shown_counts
from server.api.vector_stores.wire import (
    ChangeStore,
    CreateStore,
    ExpiresAfter,
    VectorStore,
    VectorStoreDeleted,
    VectorStoreList,
)
from server.runtime import Runtime
from server.vector_stores import Attached, Changes, StoreFact

_STORES = ["/v1/vector_stores", "/vector_stores"]
_STORE = ["/v1/vector_stores/{vector_store_id:str}", "/vector_stores/{vector_store_id:str}"]


@post(
    _STORES,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(CreateStore, VectorStore, summary="Create a vector store", faults=FAULTS),
)
async def create_store(request: Request[Any, Any, Any]) -> Reply:
    body, unknown = await decode(request, CreateStore)
    runtime: Runtime = request.app.state["runtime"]
    chunk = chunk_of(body.chunking_strategy)
    await runtime.vector_stores.check_uploaded(body.file_ids or ())
    now = int(time.time())
    asked_for = StoreFact(
        id="",
        name=body.name or "",
        description=body.description,
        embed=None,
        metadata=body.metadata or {},
        chunk=chunk,
        expires_days=None if body.expires_after is None else body.expires_after.days,
        created_at=now,
        last_active_at=now,
    )
    store = await runtime.vector_stores.create(asked_for, body.embedding_model)
    if body.file_ids:
        await runtime.vector_stores.attach(store, [Attached(file_id) for file_id in body.file_ids])
    return json(await _shown(runtime, store), headers=ignored(unknown))


@route(
    _STORES,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, VectorStoreList, query=ListQuery, summary="List the vector stores", faults=FAULTS),
)
async def list_stores(request: Request[Any, Any, Any]) -> Reply:
    query, unknown = asked(request, ListQuery)
    runtime: Runtime = request.app.state["runtime"]
    found, has_more = page(await runtime.vector_stores.every(), query, lambda store: store.id)
    stores = await asyncio.gather(*(_shown(runtime, store) for store in found))
    listed = VectorStoreList(list(stores), *ends([store.id for store in found]), has_more)
    return json(listed, headers=ignored(unknown))


@route(
    _STORE,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, VectorStore, summary="Describe one vector store", faults=FAULTS),
)
async def show_store(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return json(await _shown(runtime, await runtime.vector_stores.find(vector_store_id)))


@post(
    _STORE,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(ChangeStore, VectorStore, summary="Change a vector store", faults=FAULTS),
)
async def change_store(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    body, unknown = await decode(request, ChangeStore)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    changes = Changes(
        name=None if isinstance(body.name, UnsetType) else body.name or "",
        metadata=None if isinstance(body.metadata, UnsetType) else body.metadata or {},
        expires_days=None if body.expires_after is UNSET else body.expires_after.days if body.expires_after else 0,
    )
    return json(await _shown(runtime, await runtime.vector_stores.change(store, changes)), headers=ignored(unknown))


@delete(
    _STORE,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(None, VectorStoreDeleted, summary="Delete a vector store", faults=FAULTS),
)
async def delete_store(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    await runtime.vector_stores.delete(await runtime.vector_stores.find(vector_store_id))
    return json(VectorStoreDeleted(vector_store_id, deleted=True))


async def _shown(runtime: Runtime, store: StoreFact) -> VectorStore:
    """What a collection that is still being opened holds is not known yet, and counts as nothing."""
    seen = await runtime.vector_stores.seen(store)
    days = store.expires_days
    return VectorStore(
        id=store.id,
        name=store.name,
        description=store.description,
        created_at=store.created_at,
        last_active_at=store.last_active_at,
        status="expired" if store.expired else "in_progress" if seen.busy else "completed",
        usage_bytes=seen.bytes,
        file_counts=shown_counts(seen.counts),
        metadata=store.metadata,
        expires_after=None if days is None else ExpiresAfter(days, "last_active_at"),
        expires_at=store.expires_at,
        embedding_model=seen.embed,
    )


ROUTES = [create_store, list_stores, show_store, change_store, delete_store]
