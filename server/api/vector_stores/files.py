"""`/v1/vector_stores/{id}/files`: files put into a store, watched, changed, read back and taken out."""

from typing import Any

from litestar import Request, delete, post, route

from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.listing import READ, asked, ends, page
from server.api.reply import Reply, json
from server.api.vector_stores.shown import FAULTS, chunk_of, polled, shown_file
from server.api.vector_stores.wire import (
    AttachFile,
    ChangeFile,
    FileContentPage,
    FilesOfStoreQuery,
    StoreText,
    VectorStoreFile,
    VectorStoreFileDeleted,
    VectorStoreFileList,
)
from server.errors import Conflict, KnowledgeUnavailable
from server.runtime import Runtime
from server.vector_stores import Attached, StoreFact, StoreFile

_FILES = ["/v1/vector_stores/{vector_store_id:str}/files", "/vector_stores/{vector_store_id:str}/files"]
_FILE = [f"{path}/{{file_id:str}}" for path in _FILES]


@post(
    _FILES,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(AttachFile, VectorStoreFile, summary="Put a file into a vector store", faults=FAULTS),
)
async def attach_file(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    body, unknown = await decode(request, AttachFile)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    attached = Attached(body.file_id, body.attributes or {}, chunk_of(body.chunking_strategy))
    batch = await runtime.vector_stores.attach(store, [attached])
    return _one(runtime, store, batch.files[0], ignored(unknown))


@route(
    _FILES,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(
        None, VectorStoreFileList, query=FilesOfStoreQuery, summary="List the files of a vector store", faults=FAULTS
    ),
)
async def list_store_files(request: Request[Any, Any, Any], vector_store_id: str) -> Reply:
    query, unknown = asked(request, FilesOfStoreQuery)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    return listed(runtime, store, await runtime.vector_stores.files(store), query, ignored(unknown))


@route(
    _FILE,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, VectorStoreFile, summary="Describe one file of a vector store", faults=FAULTS),
)
async def show_store_file(request: Request[Any, Any, Any], vector_store_id: str, file_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    return _one(runtime, store, await runtime.vector_stores.file(store, file_id), {})


@post(
    _FILE,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(ChangeFile, VectorStoreFile, summary="Change a file's attributes", faults=FAULTS),
)
async def change_store_file(request: Request[Any, Any, Any], vector_store_id: str, file_id: str) -> Reply:
    body, unknown = await decode(request, ChangeFile)
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    file = await runtime.vector_stores.file(store, file_id)
    changed = await runtime.vector_stores.set_attributes(store, file, body.attributes or {})
    return _one(runtime, store, changed, ignored(unknown))


@delete(
    _FILE,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(
        None, VectorStoreFileDeleted, summary="Take a file out of a vector store", faults=FAULTS
    ),
)
async def detach_file(request: Request[Any, Any, Any], vector_store_id: str, file_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    await runtime.vector_stores.detach(store, await runtime.vector_stores.file(store, file_id))
    return json(VectorStoreFileDeleted(file_id, deleted=True))


@route(
    [f"{path}/content" for path in _FILE],
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, FileContentPage, summary="Read what was understood of a file", faults=FAULTS),
)
async def store_file_content(request: Request[Any, Any, Any], vector_store_id: str, file_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    store = await runtime.vector_stores.find(vector_store_id)
    file = await runtime.vector_stores.file(store, file_id)
    if file.status == "in_progress":
        raise KnowledgeUnavailable(f"The file `{file_id}` is still being read; try again soon.", retry_after=1)
    held = await runtime.collection(store.id).document(file_id)
    if held is None:
        raise Conflict(f"Nothing of the file `{file_id}` was taken in: it is {file.status}.", param="file_id")
    document = held.document
    texts = [StoreText(document.text)]
    return json(FileContentPage(file_id, document.filename, document.attributes, texts, texts))


def listed(
    runtime: Runtime, store: StoreFact, files: list[StoreFile], query: FilesOfStoreQuery, headers: dict[str, str]
) -> Reply:
    """One page of a store's or a batch's files."""
    wanted = [file for file in files if not isinstance(query.filter, str) or file.status == query.filter]
    found, has_more = page(wanted, query, lambda file: file.file)
    default = runtime.vector_stores.chunk(store)
    shown = [shown_file(file, default) for file in found]
    return json(VectorStoreFileList(shown, *ends([file.id for file in shown]), has_more), headers=headers)


def _one(runtime: Runtime, store: StoreFact, file: StoreFile, headers: dict[str, str]) -> Reply:
    shown = shown_file(file, runtime.vector_stores.chunk(store))
    return json(shown, headers=headers | polled([file]))


ROUTES = [attach_file, list_store_files, show_store_file, change_store_file, detach_file, store_file_content]
