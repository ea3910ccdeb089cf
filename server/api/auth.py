"""Who may ask: API keys and their scopes, checked after routing and before a body is read."""

import hashlib
from collections.abc import Iterable

from litestar.datastructures import Headers
from litestar.types import ASGIApp, Receive, Scope, Send

from config.server import Key
from config.server import Scope as Scoped
from server.errors import NotAuthenticated, NotPermitted


class KeyRing:
    """The declared keys by their SHA-256, so that looking one up takes as long for a near miss as for a far one."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {_digest(key.secret.get_secret_value()): key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, secret: str | None, scope: Scoped) -> None:
        """Raises NotAuthenticated for no or a wrong key, NotPermitted for one without `scope`."""
        if secret is None:
            raise NotAuthenticated("This server needs an API key: send it as `Authorization: Bearer KEY`.")
        key = self._keys.get(_digest(secret))
        if key is None:
            raise NotAuthenticated("The API key is not one of this server's keys.")
        if scope not in key.scopes and "admin" not in key.scopes:
            raise NotPermitted(f"The key `{key.name}` does not have the scope `{scope}`.")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def secret_of(authorization: str | None, api_key: str | None) -> str | None:
    """The key a request carries: OpenAI's clients send a bearer token, Anthropic's an x-api-key."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return api_key or None


class Gate:
    """Checks the scope that a route's handler declares as `opt["needs"]`; handlers without it are open to all.

    Middleware and not a guard of the framework, which copies the handler for every request and check.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        needs: Scoped | None = scope["route_handler"].opt.get("needs")
        if needs is not None and self._keys:
            headers = Headers.from_scope(scope)
            self._keys.check(secret_of(headers.get("authorization"), headers.get("x-api-key")), needs)
        await self._app(scope, receive, send)
