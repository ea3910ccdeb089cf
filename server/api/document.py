"""The OpenAPI document: bodies, answers and errors of every route, made from the wire types themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Any, ClassVar, get_args, get_origin

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import BaseRoute, HTTPRoute

from server.api.wire import ErrorReply

REF = "#/components/schemas/{name}"

_FAULTS = {
    "400": "The request is wrong as it stands.",
    "401": "No API key, or a wrong one.",
    "403": "The key lacks the scope.",
    "404": "There is no such model, collection or route.",
    "405": "The route does not take this method.",
    "409": "It goes against what this is, or is at now.",
    "413": "The body is larger than the server allows.",
    "415": "The body is not JSON.",
    "429": "Too many requests wait, or the limits of the key are used up; see Retry-After.",
    "500": "Hearth failed.",
    "502": "The server behind a remote model broke off; what it refuses comes with its own status.",
    "503": "The model or collection cannot answer now; see Retry-After.",
    "504": "The model did not answer within its deadline.",
}


_USUAL = tuple(status for status in _FAULTS if status != "409")


class _Documented(Operation):
    """An operation that knows the wire types whose schemas it refers to."""

    types: ClassVar[frozenset[type[msgspec.Struct]]] = frozenset()


def documented(
    body: type[msgspec.Struct] | None,
    reply: type[msgspec.Struct] | UnionType | str,
    *,
    summary: str,
    stream: type[msgspec.Struct] | UnionType | None = None,
    stream_type: str = "text/event-stream",
    fault: type[msgspec.Struct] = ErrorReply,
    faults: Iterable[str] = _USUAL,
    not_ready: bool = False,
    query: type[msgspec.Struct] | None = None,
    form: type[msgspec.Struct] | None = None,
    lines: type[msgspec.Struct] | None = None,
) -> type[Operation]:
    """An Operation class for a handler: `reply` is a wire type or a union of them, or a media type for other bytes.

    `stream` is the type of a streamed answer's events, or the union of their types; `fault` that of an error.
    `query` has a field for each parameter after the `?`, `form` one for each part of a multipart body.
    `lines` is what each line of a body of JSON Lines is.
    """
    content = {reply: OpenAPIMediaType(schema=Schema())} if isinstance(reply, str) else {_JSON: _media(reply)}
    if stream is not None:
        content[stream_type] = _media(stream)
    responses = {"200": OpenAPIResponse(description="The answer.", content=content)}
    if not_ready:
        faults = ()
        responses["503"] = OpenAPIResponse(description="Not everything is ready yet.", content=content)
    for status in faults:
        responses[status] = OpenAPIResponse(description=_FAULTS[status], content={_JSON: _media(fault)})
    requested = None
    if body is not None or form is not None:
        bodies = ((_JSON, body), ("multipart/form-data", form))
        requested = RequestBody({media: _media(kind) for media, kind in bodies if kind is not None}, required=True)

    if lines is not None:
        # No type: any bytes are such a body, and a line that is none is refused by its number.
        content = {
            each: OpenAPIMediaType(schema=Schema(content_media_type=each, content_schema=_schema(lines)))
            for each in JSON_LINES
        }
        requested = RequestBody(content, required=True)

    told = (body, form, lines, query, *_each(reply), *_each(stream), fault)
    kinds = {kind for each in told for kind in (each, *get_args(each)) if isinstance(kind, type)}

    @dataclass
    class Documented(_Documented):
        types = frozenset(kinds)

        def __post_init__(self) -> None:
            self.summary = summary
            self.request_body = requested
            self.responses = {**responses}
            self.parameters = [*(self.parameters or ()), *_parameters(query)] or None

    return Documented


def _parameters(query: type[msgspec.Struct] | None) -> list[Parameter | Reference]:
    """One for each field; their schemas are the properties of the type's own."""
    if query is None:
        return []
    place = REF.format(name=query.__name__) + "/properties/"
    return [
        Parameter(each.encode_name, "query", schema=Reference(ref=place + each.encode_name), required=each.required)
        for each in msgspec.structs.fields(query)
    ]


def _each(kind: type[msgspec.Struct] | UnionType | str | None) -> tuple[Any, ...]:
    return get_args(kind) or (() if kind is None else (kind,))


_JSON = "application/json"
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/ndjson")


def _media(kind: type[msgspec.Struct] | UnionType) -> OpenAPIMediaType:
    schemas = [_schema(each) for each in _each(kind)]
    return OpenAPIMediaType(schema=schemas[0] if len(schemas) == 1 else Schema(any_of=schemas))


def _schema(kind: Any) -> Schema | Reference:
    """Of a wire type, or of a list of one."""
    if get_origin(kind) is list:
        return Schema(type=OpenAPIType.ARRAY, items=_schema(get_args(kind)[0]))
    return Reference(ref=REF.format(name=kind.__name__))


def openapi(version: str) -> OpenAPIConfig:
    """The frame that the framework fills with the routes."""
    return OpenAPIConfig(
        title="Hearth",
        version=version,
        path="/schema",
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        use_handler_docstrings=False,
    )


def schemas(app: Litestar) -> dict[str, Any]:
    """The schemas of all wire types that the routes of `app` speak of, by their names."""
    operations = (handler.operation_class for route in app.routes for handler in _handlers(route))
    kinds = {kind for each in operations if issubclass(each, _Documented) for kind in each.types}
    return msgspec.json.schema_components(sorted(kinds, key=lambda kind: kind.__name__), ref_template=REF)[1]


def _handlers(route: BaseRoute) -> list[HTTPRouteHandler]:
    return route.route_handlers if isinstance(route, HTTPRoute) else []
