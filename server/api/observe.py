"""Around every request: its id, its way, its duration, its span. The outermost ASGI layer: faults carry ids too."""

import asyncio
import re
import time
from collections.abc import Callable

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.api import faults
from server.api.request_state import GIVEN_UP, REQUEST_ID, fresh_id
from server.api.routed import route_of, told
from server.errors import Stopping
from server.models.route import ROUTE
from server.telemetry import Telemetry

_CLIENT_LEFT = 499
"""The status of a request without an answer in metrics; servers have agreed on it, no client ever sees it."""

_sound = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Observed:
    """Wraps the application; `telemetry` gives the running one, or None before there is one.

    `sockets` are the paths of the application that speak WebSocket, for the server that is to serve it.
    """

    def __init__(
        self, app: ASGIApp, telemetry: Callable[[], Telemetry | None], sockets: frozenset[str] = frozenset()
    ) -> None:
        self.sockets = sockets
        self._app = app
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telemetry = self._telemetry()
        if scope["type"] != ScopeType.HTTP or telemetry is None:
            await self._app(scope, receive, send)
            return
        headers = Headers.from_scope(scope)
        request_id = _request_id(headers)
        scope["state"][REQUEST_ID] = request_id
        route = route_of(headers)
        status = 500
        began = False

        async def stamped(message: Message) -> None:
            nonlocal status, began
            if message["type"] == "http.response.start":
                status, began, route.answering = message["status"], True, True
                message["headers"] = [*told(list(message["headers"]), route), (b"x-request-id", request_id.encode())]
            await send(message)

        started = time.perf_counter()
        token = ROUTE.set(route)
        try:
            with telemetry.span(scope["method"], scope["path"], request_id):
                await self._app(scope, receive, stamped)
        except asyncio.CancelledError:
            if scope["state"].get(GIVEN_UP):
                status = _CLIENT_LEFT
                return
            if not began:  # the server stops, and has waited long enough
                fault = Stopping("This server is being stopped.", retry_after=5)
                await faults.answer(fault, scope)(scope, receive, stamped)
            raise
        finally:
            ROUTE.reset(token)
            telemetry.http.http(time.perf_counter() - started, scope["method"], _route(scope), status)


def _request_id(headers: Headers) -> str:
    """The client's own id when it is one, else a new one."""
    own = headers.get("x-request-id", "")
    return own if _sound.fullmatch(own) else fresh_id()


def _route(scope: Scope) -> str:
    """The route's template, so that unknown paths do not each become a time series."""
    template = scope.get("path_template")
    return str(template) if template else "unknown"
