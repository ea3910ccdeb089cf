"""Around every request: its id, its duration, its span. The outermost ASGI layer, so that faults carry ids too."""

import asyncio
import re
import time
from collections.abc import Callable

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.api import faults
from server.api.request_state import GIVEN_UP, REQUEST_ID, fresh_id
from server.errors import Stopping
from server.telemetry import Telemetry

_CLIENT_LEFT = 499
"""The status of a request without an answer in metrics; servers have agreed on it, no client ever sees it."""

_sound = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


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
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})[REQUEST_ID] = request_id.decode()
        status = 500
        began = False

        async def stamped(message: Message) -> None:
            nonlocal status, began
            if message["type"] == "http.response.start":
                status, began = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        started = time.perf_counter()
        try:
            with telemetry.span(f"{scope['method']} {scope['path']}", {"hearth.request.id": request_id.decode()}):
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
            telemetry.http.http(time.perf_counter() - started, scope["method"], _route(scope), status)


def _request_id(headers: "object") -> bytes:
    """The client's own id when it is one, else a new one."""
    for name, value in headers:  # type: ignore[attr-defined]  # ASGI's pairs of bytes
        if name == b"x-request-id" and _sound.fullmatch(value):
            return bytes(value)
    return fresh_id().encode()


def _route(scope: Scope) -> str:
    """The route's template, so that unknown paths do not each become a time series."""
    template = scope.get("path_template")
    return str(template) if template else "unknown"
