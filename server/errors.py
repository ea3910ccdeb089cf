"""Every fault a user can meet, as one tree; knows nothing of HTTP beyond the status number each fault carries.

HearthError                      500  server_error            internal_error
├── RequestError                 400  invalid_request_error   invalid_request     the request is wrong as it stands
│   ├── InvalidValue             400                          invalid_value       one field has a wrong type or value
│   ├── UnsupportedParameter     400                          unsupported_parameter   this model cannot honour it
│   ├── ContextLengthExceeded    400                          context_length_exceeded
│   ├── PreviousResponseNotFound 400                          previous_response_not_found
│   ├── ConnectionOutworn        400                          websocket_connection_limit_reached  open a new one
│   ├── NotAuthenticated         401  authentication_error    invalid_api_key
│   ├── NotPermitted             403  permission_error        insufficient_scope
│   │   └── ForeignOrigin        403                          foreign_origin      a web page of another origin asks
│   ├── NotFound                 404  not_found_error         not_found
│   │   ├── NotServed            404                          endpoint_not_served     OpenAI has it, Hearth has not
│   │   ├── ModelNotFound        404                          model_not_found
│   │   └── CollectionNotFound   404                          collection_not_found
│   ├── MethodNotAllowed         405                          method_not_allowed
│   ├── RequestTimeout           408                          request_timeout     it did not arrive in time
│   ├── BodyTooLarge             413                          body_too_large
│   ├── URITooLong               414                          uri_too_long
│   ├── UnsupportedMedia         415                          unsupported_media_type
│   ├── ExpectationFailed        417                          expectation_failed
│   ├── MisdirectedRequest       421                          misdirected_request     for a host this server is not
│   ├── HeadersTooLarge          431                          headers_too_large
│   ├── InvalidHTTP              400                          invalid_http        no request at all
│   ├── Overloaded               429  rate_limit_error        overloaded          try again after `retry_after`
│   └── RateLimitExceeded        429  rate_limit_error        rate_limit_exceeded     a key's minute is used up
└── ServiceError                 500  server_error            service_error       the request was fine, Hearth was not
    ├── ModelUnavailable         503                          model_unavailable   loading, failed or stopped
    ├── KnowledgeUnavailable     503                          knowledge_unavailable
    ├── ToolUnavailable          503                          tool_unavailable    what it offers cannot be told
    ├── TooManyConnections       503                          too_many_connections
    ├── Stopping                 503                          server_stopping
    ├── VersionNotSupported      505                          http_version_not_supported
    ├── DeadlineExceeded         504                          deadline_exceeded   no answer within the deadline
    ├── UpstreamFault            502                          upstream_error      told by the server of a remote model
    └── ModelCrashed             503                          model_crashed       its worker died under this request

`status`, `type` and `code` are class data; `code` is unique, so a fault crosses a process boundary as its code. An
UpstreamFault alone has them of its own: they are the other server's.
"""

import re
from collections.abc import Mapping


class HearthError(Exception):
    """The root. `param` names the request field at fault; `retry_after` is in seconds and becomes a header."""

    status: int = 500
    type: str = "server_error"
    code: str = "internal_error"

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class RequestError(HearthError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class InvalidValue(RequestError):
    code = "invalid_value"


class UnsupportedParameter(RequestError):
    code = "unsupported_parameter"


class ContextLengthExceeded(RequestError):
    """Its message is all that crosses the border of a worker, so the counts are read from it again."""

    code = "context_length_exceeded"

    @classmethod
    def of(cls, limit: int, tokens: int, what: str = "messages", param: str = "messages") -> "ContextLengthExceeded":
        """The sentence clients look for: they match on "maximum context length is"."""
        return cls(
            f"This model's maximum context length is {limit} tokens. However, your {what} resulted in {tokens} tokens.",
            param=param,
        )

    @property
    def counts(self) -> tuple[int, int] | None:
        """(limit, tokens) where the message is the one of `of`."""
        found = _COUNTS.search(self.message)
        return (int(found[1]), int(found[2])) if found else None


_COUNTS = re.compile(r"context length is (\d+) tokens\..* resulted in (\d+) tokens")


class PreviousResponseNotFound(RequestError):
    code = "previous_response_not_found"

    @classmethod
    def of(cls, name: str) -> "PreviousResponseNotFound":
        return cls(f"Previous response with id '{name[:80]}' not found.", param="previous_response_id")


class ConnectionOutworn(RequestError):
    code = "websocket_connection_limit_reached"


class NotAuthenticated(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotPermitted(RequestError):
    status = 403
    type = "permission_error"
    code = "insufficient_scope"


class ForeignOrigin(NotPermitted):
    code = "foreign_origin"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"
    code = "not_found"


class NotServed(NotFound):
    code = "endpoint_not_served"


class ModelNotFound(NotFound):
    code = "model_not_found"


class CollectionNotFound(NotFound):
    code = "collection_not_found"


class Conflict(RequestError):
    """What is asked goes against what something is, or is at now."""

    status = 409
    code = "conflict"


class MethodNotAllowed(RequestError):
    """`allowed` lists the methods the route takes, as the Allow header writes them."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed


class RequestTimeout(RequestError):
    status = 408
    code = "request_timeout"


class URITooLong(RequestError):
    status = 414
    code = "uri_too_long"


class ExpectationFailed(RequestError):
    status = 417
    code = "expectation_failed"


class MisdirectedRequest(RequestError):
    status = 421
    code = "misdirected_request"


class HeadersTooLarge(RequestError):
    status = 431
    code = "headers_too_large"


class InvalidHTTP(RequestError):
    code = "invalid_http"


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"


class UnsupportedMedia(RequestError):
    status = 415
    code = "unsupported_media_type"


class Overloaded(RequestError):
    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class RateLimitExceeded(RequestError):
    """`limits` are the headers that tell what is left of each limit."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after: float | None = None, limits: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.limits = limits or {}


class ServiceError(HearthError):
    code = "service_error"


class ModelUnavailable(ServiceError):
    status = 503
    code = "model_unavailable"


class KnowledgeUnavailable(ServiceError):
    status = 503
    code = "knowledge_unavailable"


class ToolUnavailable(ServiceError):
    """An entry of the recipe's tools does not start, so no model can be told of it; the text says which and why."""

    status = 503
    code = "tool_unavailable"


class TooManyConnections(ServiceError):
    status = 503
    code = "too_many_connections"


class Stopping(ServiceError):
    status = 503
    code = "server_stopping"


class VersionNotSupported(ServiceError):
    status = 505
    code = "http_version_not_supported"


class DeadlineExceeded(ServiceError):
    """Asking again would only cost as much again, so clients are told not to."""

    status = 504
    code = "deadline_exceeded"


class UpstreamFault(ServiceError):
    """The server behind a remote model refused or broke off. What it said of itself is told as it was."""

    status = 502
    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        status: int = 502,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after=retry_after)
        self.status = status
        self.type = kind or ("server_error" if status >= 500 else "invalid_request_error")
        self.code = code or "upstream_error"


class ModelCrashed(ServiceError):
    status = 503
    code = "model_crashed"


def _tree(root: type[HearthError]) -> dict[str, type[HearthError]]:
    return {root.code: root} | {code: cls for sub in root.__subclasses__() for code, cls in _tree(sub).items()}


_BY_CODE = _tree(HearthError)


def from_code(code: str, message: str, *, param: str | None = None, retry_after: float | None = None) -> HearthError:
    """The error that `code` names, as a worker reported it; an unknown code becomes the root."""
    error = _BY_CODE.get(code, HearthError)(message)
    error.param = param
    error.retry_after = retry_after
    return error
