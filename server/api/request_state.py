"""What the layers around a request leave in its ASGI state for one another."""

from secrets import token_hex

from litestar.types import Scope

REQUEST_ID = "request_id"

IN_VAIN = "in_vain"
"""Set where the work on a request is worth nothing once its client has left."""

GIVEN_UP = "given_up"
"""Set by the connection before it cancels a request: the client has left."""


def fresh_id() -> str:
    """An id for a request, or for bytes that are none."""
    return f"req_{token_hex(16)}"


def id_of(scope: Scope) -> str:
    """The id of a request that came through `Observed`; empty for one that did not."""
    return str(scope["state"].get(REQUEST_ID, ""))
