"""The tools that MCP clients are offered: a search, a way to add documents, and those that the recipe declares.

Each needs a scope of the caller's key, and without it is neither shown nor called.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from secrets import token_hex
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from config.key import Scope
from server.api.decode import whole
from server.api.documents.routes import bring
from server.api.documents.wire import PushDocument
from server.api.mcp.wire import CallToolResult, OfferedTool, ToolText
from server.api.retrieve import retrieved
from server.api.wire import Positive
from server.api.wire_retrieve import RetrieveRequest
from server.errors import HearthError, ToolUnavailable
from server.models.caller import CALLER
from server.runtime import Runtime

log = logging.getLogger(__name__)

_MOST_TOKENS = 8000
"""Of what a search tells, unless the call says otherwise: it stands in the client's context."""


class Retrieve(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `retrieve`."""

    query: Annotated[str, Meta(min_length=1, description="What to look for, in words or as a question.")]
    collections: Annotated[list[str], Meta(min_length=1, description="Which collections; all unless said.")] | None = (
        None
    )
    k: Annotated[int, Meta(ge=1, le=100, description="How many passages at most.")] | None = None
    filters: Annotated[dict[str, Any], Meta(description="OpenAI's filter grammar over attributes.")] | None = None
    max_tokens: Annotated[Positive, Meta(description="A budget for all passages together.")] = _MOST_TOKENS


class Ingest(msgspec.Struct, forbid_unknown_fields=True):
    """Arguments of `ingest`."""

    text: Annotated[str, Meta(min_length=1, description="The document, as Markdown or plain text.")]
    collection: Annotated[str, Meta(description="Which collection; may be left out where there is one.")] | None = None
    id: (
        Annotated[
            str,
            Meta(
                min_length=1, max_length=512, description="Its id, such as a path; a document of this id is replaced."
            ),
        ]
        | None
    ) = None
    title: Annotated[str, Meta(max_length=512)] | None = None
    attributes: dict[str, str | int | float | bool] | None = None


@dataclass(frozen=True)
class _BuiltIn:
    """A tool of Hearth itself: the scope it needs, its arguments, what it does."""

    scope: Scope
    arguments: type[msgspec.Struct]
    description: str
    reads_only: bool
    run: Callable[[Runtime, Any], Awaitable[CallToolResult]]


async def _retrieve(runtime: Runtime, asked: Retrieve) -> CallToolResult:
    body = RetrieveRequest(
        asked.query, collections=asked.collections, k=asked.k, filters=asked.filters, max_tokens=asked.max_tokens
    )
    page = await retrieved(runtime, body)
    results = [
        {
            "index": chunk.citation,
            "collection": chunk.collection,
            "document_id": chunk.document_id,
            "filename": chunk.filename,
            "heading": chunk.heading,
            "uri": chunk.uri,
            "score": chunk.score,
            "attributes": dict(chunk.attributes),
            "text": chunk.content[0].text,
        }
        for chunk in page.data
    ]
    shown = "\n\n".join(
        f"[{each['index']}] {each['filename']}{', ' if each['heading'] else ''}{each['heading']}\n{each['text']}"
        for each in results
    )
    return CallToolResult([ToolText(shown or "Nothing was found.")], structured_content={"results": results})


async def _ingest(runtime: Runtime, asked: Ingest) -> CallToolResult:
    names = list(runtime.shelves)
    collection = asked.collection or (names[0] if len(names) == 1 else None)
    if collection is None:
        return failed(f"Say which collection: {', '.join(names) or 'this server has none'}.")
    document = asked.id or f"note-{token_hex(8)}"
    body = PushDocument(asked.text, title=asked.title, attributes=asked.attributes)
    put = await bring(runtime.declared(collection), document, body)
    text = f"The document `{put.id}` is in the collection `{collection}` and is found from now on."
    return CallToolResult([ToolText(text)], structured_content={"id": put.id, "collection": collection})


_BUILT_IN = {
    "retrieve": _BuiltIn(
        "retrieve",
        Retrieve,
        "Searches the documents of this server and tells the passages that fit best, with their sources.",
        True,
        _retrieve,
    ),
    "ingest": _BuiltIn(
        "ingest", Ingest, "Adds a document to a collection, so that it is found from now on.", False, _ingest
    ),
}


async def offered(runtime: Runtime) -> list[OfferedTool]:
    """Those that the caller may call. An entry of the recipe that does not start is left out, and the log says why."""
    opens = CALLER.get().opens
    declared = await _declared(runtime) if opens("infer") else []
    taken = {tool.name for tool in declared}
    own = [
        OfferedTool(
            name,
            _told(tool, runtime),
            _schema(tool.arguments),
            annotations={"readOnlyHint": tool.reads_only, "openWorldHint": False},
        )
        for name, tool in _BUILT_IN.items()
        if opens(tool.scope) and name not in taken
    ]
    return own + declared


async def call(runtime: Runtime, name: str, arguments: Mapping[str, Any]) -> CallToolResult | None:
    """What a tool brought, or went wrong with; None where there is none of this name for the caller."""
    opens = CALLER.get().opens
    if opens("infer") and name in {tool.name for tool in await _declared(runtime)}:
        result = await runtime.tools.call(name, arguments)
        structured = result.structured if isinstance(result.structured, dict) else msgspec.UNSET
        return CallToolResult([ToolText(result.text)], result.error, structured)
    tool = _BUILT_IN.get(name)
    if tool is None or not opens(tool.scope):
        return None
    try:
        return await tool.run(runtime, msgspec.convert(whole(dict(arguments)), tool.arguments))
    except msgspec.ValidationError as error:
        return failed(f"The arguments do not fit: {error}.")
    except HearthError as error:
        return failed(error.message)


def failed(text: str) -> CallToolResult:
    """A tool's own failure, for the model to read."""
    return CallToolResult([ToolText(text)], is_error=True)


async def _declared(runtime: Runtime) -> list[OfferedTool]:
    found = []
    for entry in runtime.tools.entries:
        try:
            tools = await runtime.tools.tools([entry])
        except ToolUnavailable as error:
            log.warning("not offered over MCP: %s", error.message)
            continue
        found += [OfferedTool(tool.name, tool.description, tool.parameters) for tool in tools]
    return found


def _told(tool: _BuiltIn, runtime: Runtime) -> str:
    return f"{tool.description} Collections: {', '.join(runtime.shelves) or 'none'}."


def _schema(arguments: type[msgspec.Struct]) -> dict[str, Any]:
    """An object's JSON Schema, by itself: clients follow no references."""
    (schema,), _ = msgspec.json.schema_components([arguments])
    whole_ = msgspec.json.schema(arguments)
    found: dict[str, Any] = whole_["$defs"][arguments.__name__] if "$ref" in schema else schema
    return {key: value for key, value in found.items() if key not in ("title", "description")}
