"""What handlers answer with: ready-made bytes, sent as they are."""

from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Response
from litestar.types import Receive, Scope, Send

_JSON = "application/json"
_encoder = msgspec.json.Encoder()


class Direct(Response[bytes]):
    """A response that is its own ASGI application.

    The framework's way from Response to ASGIResponse costs a fifth of a chat request (`scripts/bench gateway`), and
    has nothing to add to bytes that are ready. Its constructor is left out on purpose: nothing reads what it sets.
    """

    def __init__(self, status: int, media_type: str, headers: Mapping[str, str]) -> None:
        self._status = status
        self._headers = [(b"content-type", media_type.encode())]
        self._headers += [(name.encode(), value.encode()) for name, value in headers.items()]

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> "Direct":  # type: ignore[override]  # any ASGI app serves
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything; each kind of answer in its own way."""
        raise NotImplementedError


class Reply(Direct):
    """One whole body. To HEAD the server sends the headers alone."""

    def __init__(
        self, body: bytes, *, status: int = 200, media_type: str = _JSON, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, media_type, headers or {})
        self._headers.append((b"content-length", str(len(body)).encode()))
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def json(value: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A wire type as JSON."""
    return Reply(_encoder.encode(value), status=status, headers=headers)
