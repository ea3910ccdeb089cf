"""What HTTP forbids in the head of a request and the parser lets through, and how long a head may be."""

from collections.abc import Sequence

from server.connection.bounds import HEAD_BYTES, HEADERS, URL_BYTES
from server.connection.refusal import Refused
from server.errors import (
    ExpectationFailed,
    HeadersTooLarge,
    HearthError,
    InvalidHTTP,
    MethodNotAllowed,
    URITooLong,
    VersionNotSupported,
)

Headers = Sequence[tuple[bytes, bytes]]


def check(version: str, method: bytes, url: bytes, headers: Headers) -> None:
    """Raises Refused."""
    if version not in ("1.0", "1.1"):
        raise Refused(VersionNotSupported(f"This server speaks HTTP/1.1 and HTTP/1.0, not HTTP/{version}."))
    if len(url) > URL_BYTES:
        raise Refused(too_long([]))
    if method == b"CONNECT":
        raise Refused(MethodNotAllowed("This server is no proxy: it does not take CONNECT."))
    if sum(len(name) + len(value) + 4 for name, value in headers) > HEAD_BYTES:
        raise Refused(too_long(headers))
    hosts = sum(name == b"host" for name, _ in headers)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise Refused(InvalidHTTP(f"A request has one header Host, not {hosts}."))


def expects_continue(headers: Headers) -> bool:
    """Whether the client waits to be told that it may send the body. Raises Refused for any other expectation."""
    expected = [value.strip().lower() for name, value in headers if name == b"expect"]
    if any(each != b"100-continue" for each in expected):
        raise Refused(ExpectationFailed("The only expectation this server can meet is 100-continue."))
    return bool(expected)


def length(headers: Headers) -> int | None:
    """How long the body says it is, 0 without one; None where it comes in chunks or says no number."""
    told = [value for name, value in headers if name == b"content-length"]
    if any(name == b"transfer-encoding" for name, _ in headers):
        return None
    return int(told[0]) if told and told[0].isdigit() else None if told else 0


def too_many() -> HearthError:
    return HeadersTooLarge(f"A request has at most {HEADERS} headers.")


def too_long(headers: Headers) -> HearthError:
    """Of a head whose headers have begun, or of one that is still at its target."""
    if headers:
        return HeadersTooLarge(f"The headers of a request have at most {HEAD_BYTES} bytes.")
    return URITooLong(f"The target of a request has at most {URL_BYTES} bytes.")
