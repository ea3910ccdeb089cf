"""What operators and monitors read: alive, ready, the whole state, and metrics."""

import asyncio
import time
from typing import Any, Literal

from litestar import Request, route
from litestar.enums import HttpMethod
from msgspec.structs import replace

from server.api.auth import KeyRing
from server.api.described import Described
from server.api.document import documented
from server.api.reply import Reply, json
from server.api.wire_health import (
    Alive,
    CollectionHealth,
    Health,
    ModelHealth,
    PolicyHealth,
    Readiness,
    SourceHealth,
    ToolHealth,
    Version,
    Welcome,
)
from server.knowledge import CollectionStatus, Shelf, SourceState
from server.models.served import Served
from server.policies import Keeper, Kept
from server.runtime import VERSION, Runtime
from server.telemetry import METRICS_CONTENT_TYPE
from server.tools.tool import EntryState

_READ = [HttpMethod.GET, HttpMethod.HEAD]


@route(
    "/",
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, Welcome, summary="What this is", faults=()),
)
async def welcome(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    base = f"{request.base_url}".rstrip("/")
    names = [target.id for target in runtime.targets]
    return json(Welcome("hearth", VERSION, f"{base}/v1", names, f"{base}/docs"))


@route(
    ["/healthz", "/ping"],
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, Alive, summary="Whether the server is alive", faults=()),
)
async def healthz() -> Reply:
    return json(Alive("ok"))


@route(
    "/version",
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, Version, summary="Hearth's version, where vLLM tells its own", faults=()),
)
async def version() -> Reply:
    return json(Version(VERSION))


@route(
    "/readyz",
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, Readiness, summary="Whether everything declared can answer", not_ready=True),
)
async def readyz(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    waiting = runtime.waiting
    return json(Readiness(not waiting, waiting), 503 if waiting else 200)


@route(
    "/health",
    http_method=_READ,
    status_code=200,
    operation_class=documented(None, Health, summary="The whole state", faults=()),
)
async def health(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    ring: KeyRing = request.app.state["keys"]
    texts = ring.opens(request.headers, "admin")
    models = {name: _model(model, texts) for name, model in runtime.models.items()}
    knowledge = {name: await _collection(shelf, texts) for name, shelf in runtime.shelves.items()}
    tools = {each.entry: _tool(each, texts) for each in runtime.tools.states()}
    states = [each.state for each in models.values()] + [each.state for each in knowledge.values()]
    keeper: Keeper = request.app.state["policies"]
    policies = {kept.policy.name: _policy(kept, texts) for kept in keeper}
    failed = "failed" in (*states, *(each.state for each in policies.values()))
    status = "degraded" if failed else "loading" if runtime.waiting else "ok"
    uptime = round(time.time() - runtime.started, 3)
    return json(Health(status, VERSION, runtime.recipe.digest, uptime, models, knowledge, tools, policies))  # type: ignore[arg-type]  # one of the three words


def _policy(kept: Kept, texts: bool) -> PolicyHealth:
    last = kept.last
    failed = last is not None and last.outcome != "done"
    state: Literal["waiting", "running", "failed"] = "failed" if failed else "waiting"
    return PolicyHealth(
        state="running" if kept.running is not None else state,
        next=None if kept.due is None else kept.due.at.timestamp(),
        error=last.error if texts and failed and last is not None else None,
    )


def _tool(each: EntryState, texts: bool) -> ToolHealth:
    return ToolHealth(each.kind, each.state, each.reason if texts else None, list(each.tools))


def _model(model: Served, texts: bool) -> ModelHealth:
    """`texts` says whether faults and progress are told in words, which may name files and addresses."""
    card = model.card
    return ModelHealth(
        state=model.state,
        engine=card.engine if card else model.spec.engine,
        error=model.error if texts else None,
        progress=model.progress if texts and model.state == "loading" else None,
        restarts=model.restarts,
        in_flight=model.in_flight,
        queued=model.queued,
        device=card.device if card else None,
        precision=card.precision if card else None,
        attention=card.attention if card else None,
        weights_bytes=card.weights_bytes if card else None,
        cache_bytes=card.cache_bytes if card else None,
    )


async def _collection(shelf: Shelf, texts: bool) -> CollectionHealth:
    status = await shelf.status()
    error = shelf.error if texts else None
    sources = [_source(each, n, texts) for n, each in enumerate(shelf.sources)]
    if status is None:
        return CollectionHealth(shelf.state, error, 0, 0, [], sources)
    skipped = await _skipped(shelf, status) if texts else []
    upkeep = status.upkeep if texts else replace(status.upkeep, error=None)
    return CollectionHealth(shelf.state, error, status.documents, status.chunks, skipped, sources, upkeep)


async def _skipped(shelf: Shelf, status: CollectionStatus) -> list[str]:
    """A line for each file that was not taken in."""
    if shelf.refused is None:
        return status.skipped
    return [f"{each.uri}: {each.reason}" for each in await shelf.refused.every()]


def _source(of: SourceState, n: int, texts: bool) -> SourceHealth:
    """Which file or topic it is, is told as faults are."""
    name, error = (of.source, of.error) if texts else (f"{of.source.partition(':')[0]}:{n}", None)
    return SourceHealth(name, of.state, error, of.messages, of.refused, of.lag_seconds)


@route(
    "/metrics",
    http_method=_READ,
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(None, "text/plain", summary="Metrics for Prometheus", faults=("401", "403")),
)
async def metrics(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    return Reply(runtime.telemetry.render(), media_type=METRICS_CONTENT_TYPE)


@route("/openapi.json", http_method=_READ, status_code=200, include_in_schema=False)
async def openapi_json(request: Request[Any, Any, Any]) -> Reply:
    runtime: Runtime = request.app.state["runtime"]
    document: Described = request.app.state["document"]
    cards = {name: model.card for name, model in runtime.models.items()}
    return Reply(await asyncio.to_thread(document.of, cards))
