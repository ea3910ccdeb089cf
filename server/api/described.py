"""The OpenAPI document of one server: the routes its models can serve, the ids they have, examples, headers, events.

Of a route that stands with and without /v1 the document has the former: they are one.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from litestar import Litestar
from litestar.routes import HTTPRoute

from config import Recipe
from config.model import LocalModel, ModelSpec
from server.api import precise
from server.api.document import REF, schemas
from server.api.examples import REPLIES, REQUESTS
from server.api.limits import RATE_HEADERS
from server.models.abilities import ABILITIES
from server.models.choice import ON_GPU
from server.models.engine import Card

_TAGS = {
    "Chat": (r"/v1/(chat|messages|responses)", "Conversations, in the words of OpenAI and of Anthropic."),
    "Completions": (r"/v1/(completions|fim|infill)|/completion$|/infill|/props", "Prompts that a model goes on with."),
    "Embeddings and reranking": (r"/v[12]/(embeddings|rerank)", "Texts as vectors, and documents by their fit."),
    "Knowledge": (r"/v1/(retrieve|knowledge|files|vector_stores)", "Collections, files, vector stores and search."),
    "Models": (r"/v1/models", "What this server has, loaded and unloaded."),
    "Tokens": (r"/v1/(tokenize|detokenize|apply-template)", "Texts as a model reads them."),
    "Ollama": (r"/api/", "What editors ask of Ollama."),
    "Operation": (r"", "Alive, ready, and measured."),
}
"""The tag of a path: the first whose pattern begins it."""

_TASKS = {
    "embed": r"/v1/embeddings|/api/embed",
    "rerank": r"/v[12]/(rerank|score)",
    "chat": r"/v1/(chat|messages|responses|completions)|/api/(chat|generate)|/completion$",
    "infill": r"/v1/(fim|infill)",
    "template": r"/v1/apply-template",
    "tokens": r"/v1/(tokenize|detokenize)",
    "": r"/v1/models|/api/show",
}
"""What a model has to be for or able to, for the `model` that a path's body names; empty for anything."""

_RATES = {"limit": "The most", "remaining": "What is left of the", "reset": "When there will be all"}
_HEADERS = {
    "x-request-id": "The id of this request: the client's own, or a new one. It stands in the log.",
    "x-ignored-params": "The fields of the request that had no effect, separated by commas.",
    "retry-after": "After how many seconds to try again.",
    "retry-after-ms": "The same in milliseconds.",
    **{
        f"x-ratelimit-{fact}-{what}": f"{says} {what} a minute; there where the key, or the server, has a limit."
        for what in ("requests", "tokens")
        for fact, says in _RATES.items()
    },
}
_BUSY = ("429", "503")
_ANSWERS = ("get", "head", "post", "put", "delete")


class Described:
    """The document of what is known of the models by now: a model that was loaded once has told what it can do."""

    def __init__(self, app: Litestar, recipe: Recipe) -> None:
        self._app = app
        self._recipe = recipe
        self._known: tuple[Mapping[str, Card | None], bytes] | None = None

    def of(self, cards: Mapping[str, Card | None]) -> bytes:
        """As JSON; `cards` by the models' names."""
        if self._known is None or self._known[0] != cards:
            self._known = (cards, _described(self._app, _Models(self._recipe, cards)))
        return self._known[1]


def _described(app: Litestar, models: "_Models") -> bytes:
    """The whole document as JSON, the wire types' schemas in it."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    document["info"]["description"] = (
        "Every route under /v1 stands without that prefix too. Streams are server-sent events: each `data:` line is "
        "one of the event types named, a fault is an event of its own, and comments keep the connection alive."
    )
    document["tags"] = [{"name": name, "description": says} for name, (_, says) in _TAGS.items()]
    components = document["components"]["schemas"] = schemas(app)
    models.narrow(components)
    paths = document["paths"]
    for path in list(paths):
        if f"/v1{path}" in paths:
            del paths[path]
    for path in list(paths):
        _describe(path, paths, components, models)
    server = models.recipe.server
    asks = bool(server.keys) or server.keys_file is not None
    _secure(app, paths, asks=asks)
    return msgspec.json.encode(document)


def _describe(path: str, paths: dict[str, Any], components: dict[str, Any], models: "_Models") -> None:
    tag = next(name for name, (pattern, _) in _TAGS.items() if re.match(pattern, path))
    for operation in _operations(paths[path]):
        operation["tags"] = [tag]
        if "requestBody" in operation and not _name_models(path, operation, components, models):
            del paths[path]  # no model of this recipe could answer
            return
        _frame_events(operation)
        _exemplify(operation)
        for status, response in operation["responses"].items():
            names = ["x-request-id"]
            names += ["x-ignored-params"] if status == "200" and "requestBody" in operation else []
            names += ["retry-after", "retry-after-ms"] if status in _BUSY else []
            names += RATE_HEADERS if status in ("200", "429") and "requestBody" in operation else []
            response["headers"] = {
                name: {"description": _HEADERS[name], "schema": {"type": "string"}} for name in names
            } | response.get("headers", {})


def _operations(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (item[method] for method in _ANSWERS if method in item)


# ---- models ---------------------------------------------------------------------------------------------------------


class _Models:
    """The models of a recipe, as far as the document speaks of them."""

    def __init__(self, recipe: Recipe, cards: Mapping[str, Card | None]) -> None:
        self.recipe = recipe
        self._cards = cards

    def ids(self, task: str) -> list[str]:
        """Every id a client may name where a model has to be for this task, or able to do it; each alias in full."""
        found = [name for name in self.recipe.assistants if task in ("", "chat", "template", "tokens")]
        for name, spec in self.recipe.models.items():
            if task in ("", spec.task) or self._can(name, spec, task):
                found += (name, *(alias for alias in spec.aliases if "*" not in alias))
        return found

    def patterns(self, task: str) -> list[str]:
        """As `ids`, those that stand for every id that begins so."""
        return [
            f"^{re.escape(alias.removesuffix('*'))}"
            for name, spec in self.recipe.models.items()
            if task in ("", spec.task) or self._can(name, spec, task)
            for alias in spec.aliases
            if "*" in alias
        ]

    def alone(self, task: str) -> bool:
        """Whether a request may leave out which model it is for."""
        wanted = task if task in _NAMELESS else "chat"
        return sum(spec.task == wanted for spec in self.recipe.models.values()) == 1

    def _can(self, name: str, spec: ModelSpec, ability: str) -> bool:
        card = self._cards.get(name)
        computes = spec.engine in _COMPUTING
        match ability:
            case "infill":
                return computes and spec.task == "chat" and (card is None or card.infill is not None)
            case "template":
                return computes and spec.task == "chat" and (card is None or card.template is not None)
            case "tokens":
                return computes
            case _:
                return False

    def narrow(self, components: dict[str, Any]) -> None:
        """Put into the wire types' schemas what is checked after decoding, and what these models cannot do."""
        components |= precise.NAMED | precise.declared_filter(self._attributes())
        lacking = self._lacking()
        components |= precise.pictures(seen="parts" not in lacking)
        for kind in precise.FIELDS.keys() | precise.RULES.keys() | precise.LACKING.keys():
            schema = components[kind]
            schema["properties"] |= precise.FIELDS.get(kind, {})
            for ability, fields in precise.LACKING.get(kind, {}).items():
                schema["properties"] |= fields if ability in lacking else {}
            if kind in precise.RULES:
                schema["allOf"] = precise.RULES[kind]
        tiering = self.recipe.policies.tiering
        if tiering is None or tiering.cold is None:
            for kind in ("RetrieveRequest", "AskedRetrieval"):
                components[kind]["properties"]["tiers"] = precise.LOCAL_TIERS
        conversing = {"enum": [*self.ids("template"), None]}
        components["TokenizeRequest"]["allOf"] = [
            *components["TokenizeRequest"]["allOf"],
            precise.either({"messages": precise.absent()}, {"model": conversing}),
        ]
        dimensions = self._dimensions()
        for kind in ("EmbeddingsRequest", "OllamaEmbedRequest"):
            if dimensions:
                components[kind]["properties"]["dimensions"] = {"enum": [*dimensions, None], "default": None}
        embedders = [name for name, spec in self.recipe.models.items() if spec.task == "embed"]
        components["CreateStore"]["properties"]["embedding_model"] = {"enum": [*embedders, None], "default": None}

    def _lacking(self) -> frozenset[str]:
        """The abilities that no chat model has; one that was not loaded yet has those of its engine."""
        every = frozenset[str]().union(*ABILITIES.values())
        found = frozenset[str]()
        for name, spec in self.recipe.models.items():
            if spec.task == "chat":
                card = self._cards.get(name)
                found |= card.honours if card is not None else ABILITIES.get(spec.engine, every) | {"suffix"}
                unread = card is None and spec.engine in ON_GPU  # its folder says whether it sees
                if "images" in found or unread or getattr(spec, "projector", None) is not None:
                    found |= {"parts"}  # some of them
        return (every | {"suffix"}) - found

    def _dimensions(self) -> list[int]:
        """Every length that some embedder's vectors can have; empty where one is not known yet."""
        found: set[int] = set()
        for name, spec in self.recipe.models.items():
            if spec.task == "embed":
                card = self._cards.get(name)
                if card is None or card.dimension is None or not isinstance(spec, LocalModel):
                    return []
                found |= {card.dimension, *spec.dimensions}
        return sorted(found)

    def _attributes(self) -> dict[str, str]:
        """Those that every collection declares."""
        declared = [dict(collection.attributes) for collection in self.recipe.knowledge.values()]
        return (
            {name: kind for name, kind in declared[0].items() if all(each.get(name) == kind for each in declared)}
            if declared
            else {}
        )


_COMPUTING = frozenset(("auto", "openvino", "llamacpp", "transformers"))
"""The engines of models that read token ids."""

_NAMELESS = frozenset(("rerank", "embed"))


def _name_models(path: str, operation: dict[str, Any], components: dict[str, Any], models: _Models) -> bool:
    """Put the ids a body may name into its schema. False where there is none for this path."""
    media = operation["requestBody"]["content"].get("application/json")
    task = next((task for task, pattern in _TASKS.items() if re.match(pattern, path)), None)
    if media is None or task is None:
        return True
    ids = models.ids(task)
    body = components[_named(media["schema"])]
    known = body.get("properties", {})
    if "model" in known and ids:
        known["model"] = _choice(body, ids, models, task)
        example = REQUESTS.get(_named(media["schema"]))
        if example is not None:
            media["example"] = {"model": ids[0]} | example
    return bool(ids)


def _choice(body: dict[str, Any], ids: list[str], models: _Models, task: str) -> dict[str, Any]:
    """The schema of `model`; where several could be meant, the body has to have it."""
    choice: dict[str, Any] = {"type": "string", "enum": ids}
    if patterns := models.patterns(task):
        choice = {"anyOf": [choice, *({"type": "string", "pattern": each} for each in patterns)]}
    required: list[str] = body.setdefault("required", [])
    if "model" in required or task == "":
        return choice if "model" in required else {"anyOf": [choice, {"type": "null"}], "default": None}
    if models.alone(task):
        return {"anyOf": [choice, {"type": "null"}], "default": None}
    required.append("model")
    return choice


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
