"""The application: the only place that wires Litestar. Knows every route and no behaviour behind them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.config.cors import CORSConfig
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp

from config import Recipe
from server.api import chat, completions, embeddings, health, models, rerank, retrieve
from server.api.auth import Gate, KeyRing
from server.api.document import openapi, rendered
from server.api.faults import on_bug, on_framework_error, on_hearth_error
from server.api.observe import Observed
from server.errors import HearthError
from server.runtime import VERSION, Runtime

_ROUTES = [
    health.welcome,
    health.healthz,
    health.readyz,
    health.health,
    health.metrics,
    health.openapi_json,
    models.list_models,
    models.show_model,
    chat.chat_completions,
    completions.completions,
    embeddings.embeddings,
    rerank.rerank,
    retrieve.retrieve,
]

_LOOPBACK = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"


def create_app(recipe: Recipe) -> ASGIApp:
    """The ASGI application of one recipe. Its lifespan builds the runtime, and closes it when the server stops."""

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with Runtime.build(recipe) as runtime:
            app.state["runtime"] = runtime
            yield
            del app.state["runtime"]

    app = Litestar(
        route_handlers=_ROUTES,
        lifespan=[lifespan],
        middleware=[DefineMiddleware(Gate, keys=KeyRing(recipe.server.keys))],
        exception_handlers={HearthError: on_hearth_error, HTTPException: on_framework_error, Exception: on_bug},
        cors_config=CORSConfig(
            allow_origins=list(recipe.server.cors),
            allow_origin_regex=_LOOPBACK,
            allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
            expose_headers=["x-request-id", "x-ignored-params", "retry-after"],
        ),
        openapi_config=openapi(VERSION),
        request_max_body_size=recipe.server.limits.body,
        logging_config=None,
    )
    app.state["document"] = rendered(app)
    return Observed(app, lambda: app.state["runtime"].telemetry if "runtime" in app.state else None)
