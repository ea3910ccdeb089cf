"""Which models a request's headers allow, and in its answer's headers which other model gave it."""

from litestar.datastructures import Headers

from server.models.route import Route

LOCAL_ONLY = "x-local-only"
ROUTE_HEADERS = ("x-hearth-model", "x-hearth-fallback")
_NOT = ("", "0", "false", "no")
_IGNORED = b"x-ignored-params"


def route_of(headers: Headers) -> Route:
    """The way that a request's headers allow it. Any value of x-local-only but a plain no is a yes: it keeps a
    promise."""
    return Route(local_only=headers.get(LOCAL_ONLY, "").strip().lower() not in _NOT)


def told(headers: list[tuple[bytes, bytes]], route: Route) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with those that say which way its request went."""
    if route.to is None or route.reason is None:
        return headers
    added = [(b"x-hearth-model", route.to.encode()), (b"x-hearth-fallback", route.reason.encode())]
    ignored = [each for name, value in headers if name == _IGNORED for each in value.split(b",")]
    named = dict.fromkeys([*ignored, *(name.encode() for name in route.ignored)])
    if not named:
        return [*headers, *added]
    return [*(pair for pair in headers if pair[0] != _IGNORED), *added, (_IGNORED, b",".join(named))]
