"""The application: the only place that wires Litestar. Knows every route and no behaviour behind them."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.routes import WebSocketRoute

from config import Recipe
from server.api import (
    chat,
    completions,
    documents,
    embeddings,
    files,
    health,
    infill,
    knowledge,
    loading,
    mcp,
    models,
    page,
    policies,
    rerank,
    responses,
    retrieve,
    tokens,
    vector_stores,
)
from server.api.allowed import Allowed
from server.api.auth import Gate, KeyRing
from server.api.described import Described
from server.api.document import openapi
from server.api.faults import on_bug, on_framework_error, on_hearth_error
from server.api.limits import RATE_HEADERS
from server.api.messages import routes as messages
from server.api.observe import Observed
from server.api.ollama import embedding as ollama_embedding
from server.api.ollama import models as ollama_models
from server.api.ollama import routes as ollama_routes
from server.api.origin import LOOPBACK_ORIGIN, OwnPagesOnly
from server.api.routed import ROUTE_HEADERS
from server.errors import HearthError
from server.policies.declared import kept
from server.reloading import Reload
from server.runtime import VERSION, Runtime

_ROUTES = [
    health.welcome,
    health.healthz,
    health.version,
    health.readyz,
    health.health,
    health.metrics,
    health.openapi_json,
    models.list_models,
    models.show_model,
    chat.chat_completions,
    completions.completions,
    *messages.ROUTES,
    *ollama_routes.ROUTES,
    *ollama_embedding.ROUTES,
    *ollama_models.ROUTES,
    *responses.ROUTES,
    embeddings.embeddings,
    *rerank.ROUTES,
    *files.ROUTES,
    retrieve.retrieve,
    *vector_stores.ROUTES,
    *documents.ROUTES,
    *knowledge.ROUTES,
    *tokens.ROUTES,
    *infill.ROUTES,
    *loading.ROUTES,
    *mcp.ROUTES,
    *policies.ROUTES,
    *page.ROUTES,
]


def create_app(recipe: Recipe) -> Observed:
    """The ASGI application of one recipe. Its lifespan builds the runtime, and closes it when the server stops."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        seed = f"{socket.gethostname()}:{recipe.server.data}"
        async with (
            Runtime.build(recipe) as runtime,
            kept(recipe, runtime.state, runtime.tiers, runtime.models, seed) as keeper,
            reload.watching(runtime),
        ):
            app.state["policies"] = keeper
            runtime.telemetry.watch_policies(keeper.gauge)
            app.state["runtime"] = runtime
            yield
            del app.state["runtime"]

    ring = KeyRing()
    reload = Reload(recipe, ring)
    app = Litestar(
        route_handlers=_ROUTES,
        lifespan=[lifespan],
        middleware=[DefineMiddleware(Gate, keys=ring), Allowed],
        exception_handlers={HearthError: on_hearth_error, HTTPException: on_framework_error, Exception: on_bug},
        cors_config=CORSConfig(
            allow_origins=list(recipe.server.cors),
            allow_origin_regex=LOOPBACK_ORIGIN,
            allow_methods=["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"],
            expose_headers=[
                *("x-request-id", "x-ignored-params", "retry-after", "retry-after-ms"),
                *("x-hearth-tools", "mcp-session-id"),
                *RATE_HEADERS,
                *ROUTE_HEADERS,
            ],
        ),
        openapi_config=openapi(VERSION),
        request_max_body_size=recipe.server.limits.body,
        logging_config=None,
    )
    app.state["keys"] = ring
    app.state["document"] = Described(app, recipe)
    asks = recipe.server.keys or recipe.server.keys_file is not None
    guarded = app if asks else OwnPagesOnly(app, recipe.server)
    sockets = frozenset(route.path for route in app.routes if isinstance(route, WebSocketRoute))
    return Observed(guarded, lambda: app.state["runtime"].telemetry if "runtime" in app.state else None, sockets)
