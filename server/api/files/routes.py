"""The routes of `/v1/files`."""

import asyncio
from typing import Any, BinaryIO
from urllib.parse import quote

from litestar import Request, delete, post, route
from litestar.enums import HttpMethod
from litestar.types import Receive, Scope, Send
from msgspec import UNSET

from server.api.decode import ignored
from server.api.document import documented
from server.api.files.upload import received
from server.api.files.wire import FileDeleted, FileList, FileObject, FilesQuery, FileUpload
from server.api.listing import READ, asked, ends, page
from server.api.reply import Direct, Reply, json
from server.errors import NotFound
from server.files import StoredFile
from server.runtime import Runtime

_FAULTS = ("400", "401", "403", "404", "405", "429", "500")
_BYTES = "application/octet-stream"
_PIECE = 256 * 1024


@post(
    ["/v1/files", "/files"],
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(
        None,
        FileObject,
        form=FileUpload,
        summary="Upload a file",
        faults=("400", "401", "403", "405", "413", "415", "429", "500"),
    ),
)
async def upload_file(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    async with runtime.files.incoming() as incoming:
        upload = await received(request, incoming)
        file = await runtime.files.keep(incoming, upload.filename, upload.purpose, upload.seconds)
    return json(_shown(file), headers=ignored(upload.others))


@route(
    ["/v1/files", "/files"],
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, FileList, query=FilesQuery, summary="List the files", faults=_FAULTS),
)
async def list_files(request: Request[Any, Any, Any]) -> Reply:
    query, unknown = asked(request, FilesQuery)
    runtime: Runtime = request.app.state["runtime"]
    files = [file for file in await runtime.files.every() if query.purpose in (file.purpose, UNSET)]
    found, has_more = page(files, query, lambda file: file.id)
    listed = FileList([_shown(file) for file in found], *ends([file.id for file in found]), has_more)
    return json(listed, headers=ignored(unknown))


@route(
    ["/v1/files/{file_id:str}", "/files/{file_id:str}"],
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, FileObject, summary="Describe one file", faults=_FAULTS),
)
async def show_file(request: Request[Any, Any, Any], file_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return json(_shown(await runtime.files.find(file_id)))


@route(
    ["/v1/files/{file_id:str}/content", "/files/{file_id:str}/content"],
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(None, _BYTES, summary="Read a file back", faults=_FAULTS),
)
async def file_content(request: Request[Any, Any, Any], file_id: str) -> "FileReply":
    runtime: Runtime = request.app.state["runtime"]
    file = await runtime.files.find(file_id)
    try:
        opened = await asyncio.to_thread(runtime.files.path(file).open, "rb")
    except FileNotFoundError:
        raise NotFound(f"The file `{file_id}` was deleted just now.", param="file_id") from None
    return FileReply(file, opened, head=request.method == HttpMethod.HEAD)


@delete(
    ["/v1/files/{file_id:str}", "/files/{file_id:str}"],
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(None, FileDeleted, summary="Delete a file", faults=_FAULTS),
)
async def delete_file(request: Request[Any, Any, Any], file_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    await runtime.files.delete(file_id)
    await runtime.vector_stores.forget_file(file_id)
    return json(FileDeleted(file_id, deleted=True))


class FileReply(Direct):
    """A file's bytes, read as they are sent. Always a download: what was uploaded is never shown as a page of ours."""

    def __init__(self, file: StoredFile, opened: BinaryIO, *, head: bool) -> None:
        headers = {
            "content-length": str(file.bytes),
            "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
            "x-content-type-options": "nosniff",
        }
        super().__init__(200, _BYTES, headers)
        self._opened = opened
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened as file:
            await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
            more = True
            while more:
                piece = b"" if self._head else await asyncio.to_thread(file.read, _PIECE)
                more = bool(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": more})


def _shown(file: StoredFile) -> FileObject:
    return FileObject(file.id, file.bytes, file.created_at, file.expires_at, file.filename, file.purpose)


ROUTES = [upload_file, list_files, show_file, file_content, delete_file]
