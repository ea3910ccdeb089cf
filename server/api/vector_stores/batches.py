"""`/v1/vector_stores/{id}/file_batches`: many files put into a store at once."""

from typing import Any

from litestar import Request, post, route

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.listing import READ, asked
from server.api.reply import Reply, json
from server.api.vector_stores.files import listed
from server.api.vector_stores.shown import FAULTS, chunk_of, polled, shown_counts
from server.api.vector_stores.wire import CreateBatch, FileBatch, FilesOfStoreQuery, VectorStoreFileList
from server.errors import InvalidValue
from server.runtime import Runtime
from server.vector_stores import Attached, Batch, counts

_BATCHES = [
    "/v1/vector_stores/{vector_store_id:str}/file_batches",
    "/vector_stores/{vector_store_id:str}/file_batches",
]
_BATCH = [f"{path}/{{batch_id:str}}" for path in _BATCHES]


@post(
    _BATCHES,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(CreateBatch, FileBatch, summary="Put many files into a vector store", faults=FAULTS),
)
async def create_batch(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    body, unknown = await decode(request, CreateBatch)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    batch = await runtime.vector_stores.attach(store, _attached(body), batch=True)
    return _shown(batch, ignored(unknown))


@route(
    _BATCH,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, FileBatch, summary="Describe one batch of files", faults=FAULTS),
)
async def show_batch(request: Request[Any, Any, Any], vector_store_id: str, batch_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    return _shown(await runtime.vector_stores.batch(store, batch_id), {})


@post(
    [f"{path}/cancel" for path in _BATCH],
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(None, FileBatch, summary="Cancel what waits of a batch", faults=FAULTS),
)
async def cancel_batch(request: Request[Any, Any, Any], vector_store_id: str, batch_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    return _shown(await runtime.vector_stores.cancel(store, batch_id), {})


@route(
    [f"{path}/files" for path in _BATCH],
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(
        None, VectorStoreFileList, query=FilesOfStoreQuery, summary="List the files of a batch", faults=FAULTS
    ),
)
async def list_batch_files(request: Request[Any, Any, Any], vector_store_id: str, batch_id: str) -> Reply:
    query, unknown = asked(request, FilesOfStoreQuery)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    batch = await runtime.vector_stores.batch(store, batch_id)
    return listed(runtime, store, list(batch.files), query, ignored(unknown))


def _attached(body: CreateBatch) -> list[Attached]:
    if (body.file_ids is None) == (body.files is None):
        raise InvalidValue("A batch is `file_ids` or `files`, one of them.", param="file_ids")
    if body.file_ids is not None:
        chunk = chunk_of(body.chunking_strategy)
        return [Attached(file_id, body.attributes or {}, chunk) for file_id in body.file_ids]
    return [
        Attached(each.file_id, each.attributes or {}, chunk_of(each.chunking_strategy)) for each in body.files or ()
    ]


def _shown(batch: Batch, headers: dict[str, str]) -> Reply:
    shown = FileBatch(batch.id, batch.store, batch.created_at, batch.status, shown_counts(counts(batch.files)))
    return json(shown, headers=headers | polled(list(batch.files)))


ROUTES = [create_batch, show_batch, cancel_batch, list_batch_files]
