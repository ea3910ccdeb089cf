"""Who may ask: API keys and their scopes, as a guard that runs after routing and before a body is read."""

import hashlib
from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from config.server import Key, Scope
from server.errors import NotAuthenticated, NotPermitted


class KeyRing:
    """The declared keys by their SHA-256, so that looking one up takes as long for a near miss as for a far one."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {_digest(key.secret.get_secret_value()): key for key in keys}

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check(self, secret: str | None, scope: Scope) -> None:
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


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Checks the scope that a handler declares as `opt["needs"]`; handlers without it are open to all."""
    needs: Scope | None = handler.opt.get("needs")
    keys: KeyRing = connection.app.state["keys"]
    if needs is None or not keys:
        return
    headers = connection.headers
    keys.check(secret_of(headers.get("authorization"), headers.get("x-api-key")), needs)
