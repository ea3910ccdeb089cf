"""The OpenAPI document of one server: the routes its models can serve, the ids they have, examples, headers, events.

Of a route that stands with and without /v1 the document has the former: they are one.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
from litestar import Litestar
from litestar.routes import HTTPRoute

from config import Recipe
from server.api.document import REF, schemas
from server.api.examples import REPLIES, REQUESTS

_TAGS = {
    "Chat": (r"/v1/(chat|messages|responses)", "Conversations, in the words of OpenAI and of Anthropic."),
    "Completions": (r"/v1/(completions|fim|infill)|/completion$|/infill|/props", "Prompts that a model goes on with."),
    "Embeddings and reranking": (r"/v[12]/(embeddings|rerank)", "Texts as vectors, and documents by their fit."),
    "Knowledge": (r"/v1/(retrieve|files|vector_stores)", "Files, vector stores and search."),
    "Models": (r"/v1/models", "What this server has, loaded and unloaded."),
    "Tokens": (r"/v1/(tokenize|detokenize|apply-template)", "Texts as a model reads them."),
    "Ollama": (r"/api/", "What editors ask of Ollama."),
    "Operation": (r"", "Alive, ready, and measured."),
}
"""The tag of a path: the first whose pattern begins it."""

_TASKS = {
    "embed": r"/v1/embeddings|/api/embed",
    "rerank": r"/v[12]/rerank",
    "chat": r"/v1/(chat|messages|responses|completions|fim|infill|apply-template)|/api/(chat|generate)|/completion$",
    "": r"/v1/(tokenize|detokenize|models)|/api/show",
}
"""What a model has to be for, for the `model` that a path's body names; empty for anything."""

_HEADERS = {
    "x-request-id": "The id of this request: the client's own, or a new one. It stands in the log.",
    "x-ignored-params": "The fields of the request that had no effect, separated by commas.",
    "retry-after": "After how many seconds to try again.",
}
_BUSY = ("429", "503")
_ANSWERS = ("get", "head", "post", "put", "delete")


def described(app: Litestar, recipe: Recipe) -> bytes:
    """The whole document as JSON, the wire types' schemas in it."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document["info"]["description"] = (
        "Every route under /v1 stands without that prefix too. Streams are server-sent events: each `data:` line is "
        "one of the event types named, a fault is an event of its own, and comments keep the connection alive."
    )
    document["tags"] = [{"name": name, "description": says} for name, (_, says) in _TAGS.items()]
    components = document["components"]["schemas"] = schemas(app)
    paths = document["paths"]
    for path in list(paths):
        if f"/v1{path}" in paths:
            del paths[path]
    for path in list(paths):
        _describe(path, paths, components, recipe)
    asks = bool(recipe.server.keys) or recipe.server.keys_file is not None
    _secure(app, paths, asks=asks)
    return msgspec.json.encode(document)


def _describe(path: str, paths: dict[str, Any], components: dict[str, Any], recipe: Recipe) -> None:
    tag = next(name for name, (pattern, _) in _TAGS.items() if re.match(pattern, path))
    for operation in _operations(paths[path]):
        operation["tags"] = [tag]
        if "requestBody" in operation and not _name_models(path, operation, components, recipe):
            del paths[path]  # no model of this recipe could answer
            return
        _frame_events(operation)
        _exemplify(operation)
        for status, response in operation["responses"].items():
            names = ["x-request-id"]
            names += ["x-ignored-params"] if status == "200" and "requestBody" in operation else []
            names += ["retry-after"] if status in _BUSY else []
            response["headers"] = {
                name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names
            } | response.get("headers", {})


def _operations(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (item[method] for method in _ANSWERS if method in item)


# ---- models ---------------------------------------------------------------------------------------------------------


def _name_models(path: str, operation: dict[str, Any], components: dict[str, Any], recipe: Recipe) -> bool:
    """Put the ids a body may name into its schema. False where there is none for this path."""
    media = operation["requestBody"]["content"].get("application/json")
    task = next((task for task, pattern in _TASKS.items() if re.match(pattern, path)), None)
    if media is None or task is None:
        return True
    ids = [name for name, does in _ids(recipe) if task in ("", does)]
    body = components[_named(media["schema"])]
    known = body.get("properties", {})
    if "model" in known and ids:
        choice = {"type": "string", "enum": ids}
        required = "model" in body.get("required", ())
        known["model"] = choice if required else {"anyOf": [choice, {"type": "null"}], "default": None}
        example = REQUESTS.get(_named(media["schema"]))
        if example is not None:
            media["example"] = {"model": ids[0]} | example
    return bool(ids)


def _ids(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Every id a client may name, with what it is for."""
    for name in recipe.assistants:
        yield name, "chat"
    for name, spec in recipe.models.items():
        for each in (name, *(alias for alias in spec.aliases if "*" not in alias)):
            yield each, spec.task


def _named(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).removeprefix(REF.format(name=""))


# ---- events, examples and keys --------------------------------------------------------------------------------------


def _frame_events(operation: dict[str, Any]) -> None:
    """An event is told as OpenAPI 3.2 tells it: an object whose `data` is JSON of the event's type, as text."""
    media = operation["responses"].get("200", {}).get("content", {}).get("text/event-stream")
    if media is not None and media.get("schema"):
        events = media["schema"]
        data: dict[str, Any] = {"type": "string", "contentMediaType": "application/json", "contentSchema": events}
        if "$ref" in events:  # OpenAI's older wires: one kind of event, a fault in its place, and a word at the end
            data["contentSchema"] = {"anyOf": [events, {"$ref": REF.format(name="ErrorReply")}]}
            data = {"anyOf": [data, {"const": "[DONE]"}]}
        media["schema"] = {"type": "object", "properties": {"data": data}, "required": ["data"]}


def _exemplify(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        for media in response.get("content", {}).values():
            name = _named(media.get("schema", {}))
            if name in REPLIES and (status == "404" or name != "ErrorReply"):
                media["example"] = REPLIES[name]


def _secure(app: Litestar, paths: dict[str, Any], *, asks: bool) -> None:
    """Say where a key is needed, and of which scope; leave 401 and 403 out where none is."""
    needs = {
        route.path_format: {method.lower(): handler.opt.get("needs") for method, handler in _methods(route)}
        for route in app.routes
        if isinstance(route, HTTPRoute)  # a WebSocket may stand at the same path
    }
    for path, item in paths.items():
        for method in _ANSWERS:
            if method not in item:
                continue
            scope = needs.get(path, {}).get(method)
            if asks and scope is not None:
                item[method]["security"] = [{"key": []}]
                item[method]["description"] = f"Needs a key with the scope `{scope}`."
            elif scope is None:
                item[method]["responses"].pop("401", None)


def _methods(route: Any) -> Iterator[tuple[str, Any]]:
    for handler in getattr(route, "route_handlers", ()):
        for method in handler.http_methods:
            yield method, handler
