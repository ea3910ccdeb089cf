"""The OpenAPI document: bodies, answers and errors of every route, made from the wire types themselves."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    OpenAPIResponse,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)
from litestar.routes import BaseRoute, HTTPRoute

from server.api.wire import ErrorReply

_REF = "#/components/schemas/{name}"

_FAULTS = {
    "400": "The request is wrong as it stands.",
    "401": "No API key, or a wrong one.",
    "403": "The key lacks the scope.",
    "404": "There is no such model, collection or route.",
    "405": "The route does not take this method.",
    "413": "The body is larger than the server allows.",
    "415": "The body is not JSON.",
    "429": "Too many requests wait; see Retry-After.",
    "500": "Hearth failed.",
    "503": "The model or collection cannot answer now; see Retry-After.",
    "504": "The model did not answer within its deadline.",
}


class _Documented(Operation):
    """An operation that knows the wire types whose schemas it refers to."""

    types: ClassVar[frozenset[type[msgspec.Struct]]] = frozenset()


def documented(
    body: type[msgspec.Struct] | None,
    reply: type[msgspec.Struct] | str,
    *,
    summary: str,
    stream: type[msgspec.Struct] | None = None,
    faults: Iterable[str] = tuple(_FAULTS),
    not_ready: bool = False,
) -> type[Operation]:
    """An Operation class for a handler: `reply` is a wire type, or a media type for bytes that are not JSON."""
    content = {reply: OpenAPIMediaType(schema=Schema())} if isinstance(reply, str) else {_JSON: _media(reply)}
    if stream is not None:
        content["text/event-stream"] = OpenAPIMediaType(schema=Schema(description=f"Events of {stream.__name__}."))
    responses = {"200": OpenAPIResponse(description="The answer.", content=content)}
    if not_ready:
        faults = ()
        responses["503"] = OpenAPIResponse(description="Not everything is ready yet.", content=content)
    for status in faults:
        responses[status] = OpenAPIResponse(description=_FAULTS[status], content={_JSON: _media(ErrorReply)})
    requested = None if body is None else RequestBody(content={_JSON: _media(body)}, required=True)

    kinds = {kind for kind in (body, reply, stream, ErrorReply) if isinstance(kind, type)}

    @dataclass
    class Documented(_Documented):
        types = frozenset(kinds)

        def __post_init__(self) -> None:
            self.summary = summary
            self.request_body = requested
            self.responses = {**responses}

    return Documented


_JSON = "application/json"


def _media(kind: type[msgspec.Struct]) -> OpenAPIMediaType:
    return OpenAPIMediaType(schema=Reference(ref=_REF.format(name=kind.__name__)))


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


def rendered(app: Litestar) -> bytes:
    """The whole document as JSON, the wire types' schemas in it."""
    operations = (handler.operation_class for route in app.routes for handler in _handlers(route))
    kinds = {kind for each in operations if issubclass(each, _Documented) for kind in each.types}
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document["components"]["schemas"] = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template=_REF
    )[1]
    return msgspec.json.encode(document)


def _handlers(route: BaseRoute) -> list[HTTPRouteHandler]:
    return route.route_handlers if isinstance(route, HTTPRoute) else []
