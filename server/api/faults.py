"""Every fault to OpenAI's error object, in one place."""

import logging
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)

from server.api.reply import Reply
from server.api.wire import ErrorBody, ErrorReply
from server.errors import BodyTooLarge, DeadlineExceeded, HearthError, MethodNotAllowed, NotFound, RequestError

log = logging.getLogger(__name__)


def body(error: HearthError) -> bytes:
    """The JSON of one fault; also what a stream carries when it fails in the middle."""
    return msgspec.json.encode(ErrorReply(ErrorBody(error.message, error.type, error.param, error.code)))


def answer(error: HearthError) -> Reply:
    headers = {} if error.retry_after is None else {"retry-after": str(max(1, round(error.retry_after)))}
    if isinstance(error, DeadlineExceeded):
        headers["x-should-retry"] = "false"
    if isinstance(error, MethodNotAllowed) and error.allowed:
        headers["allow"] = error.allowed
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Reply(body(error), status=error.status, headers=headers)


def on_hearth_error(_request: Request[Any, Any, Any], error: HearthError) -> Reply:
    return answer(error)


def on_framework_error(request: Request[Any, Any, Any], error: HTTPException) -> Reply:
    """What the framework found before a handler ran: unknown routes, wrong methods, large bodies."""
    return answer(_translated(request, error))


def on_bug(request: Request[Any, Any, Any], error: Exception) -> Reply:
    """The outermost fence: what nobody expected is logged whole and told without details."""
    log.error("unexpected fault in %s %s", request.method, request.url.path, exc_info=error)
    return answer(HearthError("Hearth met an unexpected fault; its log has the details."))


def _translated(request: Request[Any, Any, Any], error: HTTPException) -> HearthError:
    path = request.url.path[:200]
    if isinstance(error, NotFoundException):
        return NotFound(f"There is no route {request.method} {path}.")
    if isinstance(error, MethodNotAllowedException):
        allowed = (error.headers or {}).get("allow", "")
        return MethodNotAllowed(f"{path} does not take {request.method}.", allowed=allowed)
    if error.status_code == 413:
        return BodyTooLarge("The request body is larger than server.limits.body allows.")
    if isinstance(error, ClientException) or error.status_code < 500:
        return RequestError(error.detail)
    return HearthError(error.detail)
