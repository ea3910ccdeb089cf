"""OPTIONS: every method a path takes. The framework alone tells those of the path's first handler only."""

from litestar.enums import HttpMethod, ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Receive, Scope, Send


class Allowed:
    """Answers OPTIONS after routing; what browsers ask before a request across origins, CORS has answered already."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] != HttpMethod.OPTIONS:
            await self._app(scope, receive, send)
            return
        alike = (route for route in scope["litestar_app"].routes if route.path_format == scope["path_template"])
        methods = {method for route in alike if isinstance(route, HTTPRoute) for method in route.methods}
        headers = [(b"allow", ", ".join(sorted(methods)).encode())]
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
