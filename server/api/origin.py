"""Which web pages may use a server that asks for no key: those of this machine, and those the recipe names.

A browser lets any page send requests to 127.0.0.1. What the page may not do is read the answer, unless CORS lets it
or its own name has been made to point here (DNS rebinding). So a request that changes or computes something is
refused where a foreign page sent it, and on loopback every request for a name that is no name of this machine.
With keys none of this is needed: a foreign page has none.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from litestar.datastructures import Headers
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from config.server import ServerSpec
from server.api import faults
from server.errors import ForeignOrigin, HearthError, MisdirectedRequest

LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"

_READING = ("GET", "HEAD", "OPTIONS")
_PRIVATE = (".localhost", ".local", ".internal", ".home.arpa")
"""Ends of names that the public DNS answers for nobody; host.docker.internal is one."""


class OwnPagesOnly:
    """Wraps the application of a server without keys."""

    def __init__(self, app: ASGIApp, spec: ServerSpec) -> None:
        self._app = app
        self._declared = frozenset(origin.lower() for origin in spec.cors)
        self._names = _Names(spec.hosts) if _is_loopback(spec.listen.host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._fault(scope) if scope["type"] in (ScopeType.HTTP, ScopeType.WEBSOCKET) else None
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == ScopeType.WEBSOCKET:
            await receive()  # the handshake, which has to be heard before it is refused
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        else:
            await faults.answer(error, scope)(scope, receive, send)

    def _fault(self, scope: Scope) -> HearthError | None:
        headers = Headers.from_scope(scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        if self._names is not None and host and not self._names.has(host):
            return MisdirectedRequest(
                f"This server listens on this machine alone and is not called {host[:100]}. "
                "If that is the name of a proxy in front of it, add it to server.hosts of the recipe."
            )
        if origin and scope.get("method") not in _READING and self._foreign(origin, host):
            return ForeignOrigin(
                f"A page of {origin[:100]} may not use this server. To let it, add its origin to server.cors."
            )
        return None

    def _foreign(self, origin: str, host: str) -> bool:
        """Whether a page of `origin` is of another site. Editors' own pages have schemes of their own, and may."""
        if origin in self._declared or re.fullmatch(LOOPBACK_ORIGIN, origin):
            return False
        scheme, _, authority = origin.partition("://")
        return origin == "null" or (scheme in ("http", "https") and authority != host)


class _Names:
    """What this machine is called. Any name without a dot counts: the public DNS has none, so no page has one."""

    def __init__(self, declared: Iterable[str]) -> None:
        own = {socket.gethostname().lower()}
        self._known = frozenset({*own, *(name.lower() for name in declared)})
        self.has = lru_cache(256)(self._has)

    def _has(self, host: str) -> bool:
        """`host` as the header Host writes it, with a port or without."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        return "." not in name or name in self._known or name.endswith(_PRIVATE) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)
