"""Around every request: whether it may leave this machine, and in its answer which other model gave it."""

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from server.models.route import ROUTE, Route

LOCAL_ONLY = "x-local-only"
ROUTE_HEADERS = ("x-hearth-model", "x-hearth-fallback")
_NOT = ("", "0", "false", "no")
_IGNORED = b"x-ignored-params"


class Routed:
    """Wraps the application. Any value of the header x-local-only but a plain no is a yes: it keeps a promise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        route = route_of(scope)

        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                route.answering = True
                message["headers"] = _stamped(list(message["headers"]), route)
            await send(message)

        token = ROUTE.set(route)
        try:
            await self._app(scope, receive, stamped)
        finally:
            ROUTE.reset(token)


def route_of(scope: Scope) -> Route:
    """The way that a request's headers allow it."""
    told = Headers.from_scope(scope).get(LOCAL_ONLY, "")
    return Route(local_only=told.strip().lower() not in _NOT)


def _stamped(headers: list[tuple[bytes, bytes]], route: Route) -> list[tuple[bytes, bytes]]:
    if route.to is None or route.reason is None:
        return headers
    headers += [(b"x-hearth-model", route.to.encode()), (b"x-hearth-fallback", route.reason.encode())]
    told = [each for name, value in headers if name == _IGNORED for each in value.split(b",")]
    named = dict.fromkeys([*told, *(name.encode() for name in route.ignored)])
    if not named:
        return headers
    return [*((name, value) for name, value in headers if name != _IGNORED), (_IGNORED, b",".join(named))]
