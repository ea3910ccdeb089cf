"""Every fault to the error object of its wire, in one place: OpenAI's, and on their routes Anthropic's and Ollama's."""

import logging
import math
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import Headers
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
)
from litestar.types import Scope

from server.api import unserved
from server.api.messages.wire import ANTHROPIC, MessagesFault, MessagesFaultDetails, MessagesFaultReply
from server.api.ollama.wire import OllamaFault
from server.api.reply import Reply
from server.api.request_state import id_of
from server.api.wire import ErrorBody, ErrorReply
from server.errors import (
    BodyTooLarge,
    Conflict,
    ContextLengthExceeded,
    DeadlineExceeded,
    HearthError,
    MethodNotAllowed,
    NotFound,
    NotServed,
    RateLimitExceeded,
    RequestError,
    UnsupportedParameter,
)

log = logging.getLogger(__name__)


def body(error: HearthError) -> bytes:
    """The JSON of one fault; also what a stream carries when it fails in the middle."""
    return msgspec.json.encode(ErrorReply(ErrorBody(error.message, error.type, error.param, error.code)))


_ANTHROPIC = {413: "request_too_large", 503: "overloaded_error", 504: "timeout_error"}
"""Anthropic's error types by status, where they are others than the error tree's."""


def anthropic_body(error: HearthError, asked: str) -> bytes:
    """As `body`, for Anthropic's clients; `asked` is the request's id.

    Claude Code shortens its conversation where it is told that "prompt is too long: N tokens > M maximum".
    """
    message = error.message
    if isinstance(error, ContextLengthExceeded) and error.counts is not None:
        limit, tokens = error.counts
        message = f"prompt is too long: {tokens} tokens > {limit} maximum"
    kind = _ANTHROPIC.get(error.status, "api_error" if error.type == "server_error" else error.type)
    fault = MessagesFault(kind, message)
    if isinstance(error, UnsupportedParameter) and error.param == "thread":
        fault.details = MessagesFaultDetails("thread_unsupported_request", [error.param])
    return msgspec.json.encode(MessagesFaultReply(fault, asked or msgspec.UNSET))


def ollama_body(error: HearthError) -> bytes:
    """As `body`, for Ollama's clients."""
    return msgspec.json.encode(OllamaFault(error.message))


def _body(error: HearthError, scope: Scope) -> bytes:
    """In the shape of the wire that was spoken; a path says which, also where there is no route."""
    path = scope["path"]
    if path.startswith(("/v1/messages", "/messages")) or ANTHROPIC in Headers.from_scope(scope):
        return anthropic_body(error, id_of(scope))
    return ollama_body(error) if path.startswith("/api/") else body(error)


def request_id(scope: Scope) -> dict[str, str]:
    """The request's id under the name by which Anthropic's SDKs look for it."""
    return {"request-id": id_of(scope)}


def headers(error: HearthError) -> dict[str, str]:
    """What an answer with this fault says beside its body, whatever shape that has."""
    told: dict[str, str] = {}
    if error.retry_after is not None:
        told["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        told["retry-after-ms"] = str(max(1, math.ceil(1000 * error.retry_after)))
        told["x-should-retry"] = "true"
    if isinstance(error, Conflict | DeadlineExceeded):  # both of which SDKs would ask again
        told["x-should-retry"] = "false"
    if isinstance(error, MethodNotAllowed) and error.allowed:
        told["allow"] = error.allowed
    if isinstance(error, RateLimitExceeded):
        told |= error.limits
    if error.status == 401:
        told["www-authenticate"] = "Bearer"
    return told


def answer(error: HearthError, scope: Scope) -> Reply:
    return Reply(_body(error, scope), status=error.status, headers=headers(error) | request_id(scope))


def on_hearth_error(request: Request[Any, Any, Any], error: HearthError) -> Reply:
    return answer(error, request.scope)


def on_framework_error(request: Request[Any, Any, Any], error: HTTPException) -> Reply:
    """What the framework found before a handler ran: unknown routes, wrong methods, large bodies."""
    return answer(_translated(request, error), request.scope)


def on_bug(request: Request[Any, Any, Any], error: Exception) -> Reply:
    """The outermost fence: what nobody expected is logged whole and told without details."""
    log.error("unexpected fault in %s %s", request.method, request.url.path, exc_info=error)
    return answer(HearthError("Hearth met an unexpected fault; its log has the details."), request.scope)


def _translated(request: Request[Any, Any, Any], error: HTTPException) -> HearthError:
    path = request.url.path[:200]
    if isinstance(error, NotFoundException):
        if (why := unserved.reason(path)) is not None:
            return NotServed(why)
        near = unserved.meant(path, [route.path for route in request.app.routes])
        hint = "" if near is None else f" Did you mean {near}?"
        hint += " The base URL of Anthropic's clients has no /v1 at its end." if path.startswith("/v1/v1/") else ""
        return NotFound(f"There is no route {request.method} {path}.{hint}")
    if isinstance(error, MethodNotAllowedException):
        named = (error.headers or {}).get("allow", "").split(", ")
        allowed = ", ".join(method for method in named if method.isupper())  # the framework counts `websocket` as one
        return MethodNotAllowed(f"{path} does not take {request.method}.", allowed=allowed)
    if error.status_code == 413:
        return BodyTooLarge("The request body is larger than server.limits.body allows.")
    if isinstance(error, ClientException) or error.status_code < 500:
        return RequestError(error.detail)
    return HearthError(error.detail)
