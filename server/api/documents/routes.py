"""`/v1/knowledge/{collection}/documents`: documents go in under ids of the client's, and are then searchable."""

import asyncio
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from litestar import Request, delete, post, put, route

from server.api.decode import decode, ignored
from server.api.document import JSON_LINES, documented
from server.api.documents.wire import (
    DocumentLine,
    DocumentsPushed,
    KnowledgeDocument,
    KnowledgeDocumentDeleted,
    KnowledgeDocumentList,
    PushDocument,
)
from server.api.listing import READ, ListQuery, asked, ends, page
from server.api.reply import Reply, json
from server.errors import Conflict, InvalidValue, NotFound, UnsupportedMedia
from server.knowledge import (
    SUFFIX_OF_MEDIA,
    Collection,
    Document,
    Unreadable,
    bring_lines,
    given_vector,
    read_document,
)
from server.runtime import Runtime

_DOCUMENTS = ["/v1/knowledge/{collection:str}/documents", "/knowledge/{collection:str}/documents"]
_DOCUMENT = [f"{path}/{{document_id:path}}" for path in _DOCUMENTS]
_FAULTS = ("400", "401", "403", "404", "405", "409", "413", "415", "429", "500", "503", "504")
_MAX_ID = 512


@put(
    _DOCUMENT,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(
        PushDocument, KnowledgeDocument, summary="Put a document into a collection", faults=_FAULTS
    ),
)
async def put_document(request: Request[Any, Any, Any], collection: str, document_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    into = runtime.declared(collection)
    document = await _sent(request, into, _id(document_id))
    size = await _put(into, document)
    return json(_shown(into, document, size))


@post(
    _DOCUMENTS,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(
        None, DocumentsPushed, lines=DocumentLine, summary="Put many documents into a collection", faults=_FAULTS
    ),
)
async def push_documents(request: Request[Any, Any, Any], collection: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    into = runtime.declared(collection)
    media, _ = request.content_type
    if media not in JSON_LINES:
        raise UnsupportedMedia(f"Send one document a line, with the header `Content-Type: {JSON_LINES[0]}`.")
    if (encoding := request.headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
        raise UnsupportedMedia(f"Send the body as it is, not encoded as {encoding[:80]}.")
    report = await bring_lines(into, request.stream())
    return json(
        DocumentsPushed(into.name, report.written, report.unchanged, report.deleted, report.refused, report.told)
    )


@route(
    _DOCUMENTS,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(
        None, KnowledgeDocumentList, query=ListQuery, summary="List the documents of a collection", faults=_FAULTS
    ),
)
async def list_documents(request: Request[Any, Any, Any], collection: str) -> Reply:
    query, unknown = asked(request, ListQuery)
    runtime: Runtime = request.app.state["runtime"]
    of = runtime.declared(collection)
    found, has_more = page(await of.documents(), query, lambda each: each.id)
    shown = [
        KnowledgeDocument(
            each.id, of.name, each.uri, each.filename, each.title, each.licence, each.attributes, each.bytes
        )
        for each in found
    ]
    listed = KnowledgeDocumentList(shown, *ends([each.id for each in shown]), has_more)
    return json(listed, headers=ignored(unknown))


@route(
    _DOCUMENT,
    http_method=READ,
    status_code=200,
    opt={"needs": "retrieve"},
    operation_class=documented(
        None, KnowledgeDocument, summary="Describe one document of a collection", faults=_FAULTS
    ),
)
async def show_document(request: Request[Any, Any, Any], collection: str, document_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    of = runtime.declared(collection)
    document, size = await _held(of, document_id.removeprefix("/"))
    return json(_shown(of, document, size))


@delete(
    _DOCUMENT,
    status_code=200,
    opt={"needs": "ingest"},
    operation_class=documented(
        None, KnowledgeDocumentDeleted, summary="Take a document out of a collection", faults=_FAULTS
    ),
)
async def delete_document(request: Request[Any, Any, Any], collection: str, document_id: str) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    of = runtime.declared(collection)
    document, _ = await _held(of, document_id.removeprefix("/"))
    _check_pushed(document)
    await of.delete([document.id])
    return json(KnowledgeDocumentDeleted(document.id, deleted=True))


async def _sent(request: Request[Any, Any, Any], into: Collection, document_id: str) -> Document:
    """JSON with the text, or the file itself under its media type."""
    media, given = request.content_type
    is_named = media == "application/octet-stream" or media.startswith("text/x-")  # the id says how it is read
    if media in SUFFIX_OF_MEDIA or is_named:
        suffix = SUFFIX_OF_MEDIA.get(media, "")
        return await _read(into, await request.body(), document_id, suffix, given.get("charset"))
    body, _ = await decode(request, PushDocument)
    return await _made(into, document_id, body)


async def bring(into: Collection, document_id: str, body: PushDocument) -> Document:
    """Put a document into a collection, in place of what its id is now. Raises Conflict for one of the recipe's."""
    document = await _made(into, _id(document_id), body)
    await _put(into, document)
    return document


async def _put(into: Collection, document: Document) -> int:
    """The bytes of its chunks' texts and vectors."""
    report = await into.upsert([document])
    for skipped in report.skipped:
        param = "text" if document.vector is None else "vector"
        raise InvalidValue(f"The document cannot be taken in: {skipped.reason}.", param=param)
    return report.bytes[document.uri]


async def _made(into: Collection, document_id: str, body: PushDocument) -> Document:
    read = await _read(into, body.text.encode("utf-8", "replace"), document_id, ".md")
    attributes = {**read.attributes, **(body.attributes or {})}
    licence = body.licence or read.licence
    try:
        vector = None if body.vector is None else given_vector(body.vector)
    except Unreadable as error:
        raise InvalidValue(f"The document cannot be taken in: {error}.", param="vector") from error
    # Its hash tells what was sent beside the text too.
    title = body.title or read.title
    return replace(read, title=title, attributes=attributes, licence=licence, vector=vector, hash="")


async def _read(into: Collection, raw: bytes, document_id: str, suffix: str, charset: str | None = None) -> Document:
    name = PurePosixPath(document_id).name or document_id
    try:
        read = await asyncio.to_thread(read_document, raw, document_id, f"{name}{suffix}", into.types, charset)
    except Unreadable as error:
        raise InvalidValue(f"The document cannot be read: {error}.", param="text") from error
    if not read.text[read.body :].strip():
        raise InvalidValue("There is no text in the document.", param="text")
    return replace(read, uri=document_id, filename=name)


def _check_pushed(document: Document) -> None:
    if document.is_declared:
        raise Conflict(f"`{document.id}` comes from a source of the recipe, which alone says what it holds.")


async def _held(of: Collection, document_id: str) -> tuple[Document, int]:
    held = await of.document(document_id)
    if held is None:
        raise NotFound(f"The collection `{of.name}` has no document `{document_id[:100]}`.", param="document_id")
    return held.document, held.bytes


def _id(path: str) -> str:
    """The id of a document to be, as it stands in the path, slashes and all. Raises InvalidValue."""
    found = path.removeprefix("/")
    if not 1 <= len(found) <= _MAX_ID or not found.isprintable():
        raise InvalidValue(f"A document's id has 1 to {_MAX_ID} printable characters.", param="document_id")
    return found


def _shown(of: Collection, document: Document, size: int) -> KnowledgeDocument:
    return KnowledgeDocument(
        document.id,
        of.name,
        document.uri,
        document.filename,
        document.title,
        document.licence,
        document.attributes,
        size,
    )


ROUTES = [put_document, push_documents, list_documents, show_document, delete_document]
