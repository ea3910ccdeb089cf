"""Every fault a user can meet, as one tree; knows nothing of HTTP beyond the status number each fault carries.

HearthError                      500  server_error            internal_error
├── RequestError                 400  invalid_request_error   invalid_request     the request is wrong as it stands
│   ├── InvalidValue             400                          invalid_value       one field has a wrong type or value
│   ├── UnsupportedParameter     400                          unsupported_parameter   this model cannot honour it
│   ├── ContextLengthExceeded    400                          context_length_exceeded
│   ├── NotAuthenticated         401  authentication_error    invalid_api_key
│   ├── NotPermitted             403  permission_error        insufficient_scope
│   ├── NotFound                 404  not_found_error         not_found
│   │   ├── ModelNotFound        404                          model_not_found
│   │   └── CollectionNotFound   404                          collection_not_found
│   ├── MethodNotAllowed         405                          method_not_allowed
│   ├── BodyTooLarge             413                          body_too_large
│   ├── UnsupportedMedia         415                          unsupported_media_type
│   └── Overloaded               429  rate_limit_error        overloaded          try again after `retry_after`
└── ServiceError                 500  server_error            service_error       the request was fine, Hearth was not
    ├── ModelUnavailable         503                          model_unavailable   loading, failed or stopped
    ├── KnowledgeUnavailable     503                          knowledge_unavailable
    ├── DeadlineExceeded         504                          deadline_exceeded   no answer within the deadline
    └── ModelCrashed             503                          model_crashed       its worker died under this request

`status`, `type` and `code` are class data; `code` is unique, so a fault crosses a process boundary as its code.
"""

from typing import ClassVar


class HearthError(Exception):
    """The root. `param` names the request field at fault; `retry_after` is in seconds and becomes a header."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

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
    code = "context_length_exceeded"

    @classmethod
    def of(cls, limit: int, tokens: int, what: str = "messages", param: str = "messages") -> "ContextLengthExceeded":
        """The sentence clients look for: they match on "maximum context length is"."""
        return cls(
            f"This model's maximum context length is {limit} tokens. However, your {what} resulted in {tokens} tokens.",
            param=param,
        )


class NotAuthenticated(RequestError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class NotPermitted(RequestError):
    status = 403
    type = "permission_error"
    code = "insufficient_scope"


class NotFound(RequestError):
    status = 404
    type = "not_found_error"
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class CollectionNotFound(NotFound):
    code = "collection_not_found"


class MethodNotAllowed(RequestError):
    """`allowed` lists the methods the route takes, as the Allow header writes them."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed


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


class ServiceError(HearthError):
    code = "service_error"


class ModelUnavailable(ServiceError):
    status = 503
    code = "model_unavailable"


class KnowledgeUnavailable(ServiceError):
    status = 503
    code = "knowledge_unavailable"


class DeadlineExceeded(ServiceError):
    """Asking again would only cost as much again, so clients are told not to."""

    status = 504
    code = "deadline_exceeded"


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
