"""What is wrong with bytes that are no request, and the answer to them, which no application ever sees."""

from collections.abc import Sequence

import httptools
from httptools.parser.errors import HttpParserInvalidMethodError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from server.api import faults
from server.api.request_state import fresh_id
from server.errors import HearthError, InvalidHTTP

_TLS_HANDSHAKE = 0x16


class Refused(Exception):
    """Raised inside the parser, which wraps it, to end the parsing with `error`."""

    def __init__(self, error: HearthError) -> None:
        self.error = error


def fault(error: httptools.HttpParserError, data: bytes) -> HearthError:
    """What the parser found in `data`, as a fault."""
    found = error.__context__
    if isinstance(found, Refused):
        return found.error
    if data[0] == _TLS_HANDSHAKE:
        return InvalidHTTP("This port speaks HTTP, not HTTPS: use a URL that begins with http://.")
    if isinstance(error, HttpParserInvalidMethodError):
        return InvalidHTTP("The request does not begin with a method of HTTP/1.1.")
    if isinstance(found, httptools.HttpParserInvalidURLError | UnicodeDecodeError | AttributeError):
        return InvalidHTTP("The target of the request is not a valid URL.")
    return InvalidHTTP(f"This is not a valid HTTP/1.1 request: {error}.")


def answer(error: HearthError, default_headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A whole response, the last of its connection."""
    body = faults.body(error)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": fresh_id(),
        **faults.headers(error),
    }
    lines = [b"%s: %s\r\n" % pair for pair in default_headers]
    lines += [f"{name}: {value}\r\n".encode("latin-1", "replace") for name, value in headers.items()]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])
