"""What answers at a recipe's address, as commands read it: the body that was asked for, or why there is none."""

from typing import TypeVar

import httpx
import msgspec

from server.api.wire import ErrorReply
from server.errors import HearthError

T = TypeVar("T")


def told(reply: httpx.Response, kind: type[T]) -> T:
    """The body of a reply that has been read. Raises what `fault` makes of any other."""
    if reply.status_code == httpx.codes.OK:
        try:
            return msgspec.json.decode(reply.content, type=kind)
        except msgspec.MsgspecError:
            pass
    raise fault(reply)


def fault(reply: httpx.Response) -> HearthError:
    """The reason that the server gives, or that it is another program."""
    try:
        return HearthError(msgspec.json.decode(reply.content, type=ErrorReply).error.message)
    except msgspec.MsgspecError:
        return HearthError(f"What answers at {reply.url} with {reply.status_code} is no Hearth.")
