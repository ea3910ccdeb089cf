"""Bytes to wire types, strictly: a wrong type is a 400 that names the field, an unknown field a name in a header."""

import re
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request

from server.api.request_state import IN_VAIN
from server.errors import InvalidValue, RequestError, UnsupportedMedia
from server.models.route import ROUTE

T = TypeVar("T", bound=msgspec.Struct)

_MOST_NAMES = 20
_at = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`$")


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, strict=True)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def decode(request: Request[Any, Any, Any], kind: type[T]) -> tuple[T, list[str]]:
    """The body as `kind`, and the names of the fields it has besides.

    Raises InvalidValue with the field's path, or RequestError where the body is no JSON object at all.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia(f"Send the body as it is, not encoded as {encoding[:80]}.")
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMedia(f"Send the header `Content-Type: application/json`; this body is labelled {media[:80]}.")
    body = await request.body()
    if request.route_handler.opt.get("needs") in ("infer", "retrieve"):
        request.scope["state"][IN_VAIN] = True
    return parse(body, kind)


def parse(body: bytes, kind: type[T]) -> tuple[T, list[str]]:
    """As `decode`, from bytes."""
    try:
        value = _read(body, kind)
        known = kind.__struct_fields__
        unknown = {name: field for name, field in _fields.decode(body).items() if name not in known}
        if (local_only := unknown.pop("local_only", None)) is not None:
            _stay(local_only)
        return value, list(unknown)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from error
    except msgspec.DecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"The body is not valid UTF-8: {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise RequestError("The body is nested too deeply.") from error


def _read(body: bytes, kind: type[T]) -> T:
    try:
        found: T = _decoder(kind).decode(body)
        return found
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    # JSON has one kind of number, and 1.0 is as whole as 1: clients whose language has no integers send either.
    value: T = msgspec.convert(whole(msgspec.json.decode(body)), kind)
    return value


def whole(value: Any) -> Any:
    """Decoded JSON with all numbers that are whole as integers."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: whole(each) for name, each in value.items()}
        case list():
            return [whole(each) for each in value]
        case _:
            return value


def fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a body that was parsed, as the client wrote them."""
    return _fields.decode(body)


def _stay(local_only: msgspec.Raw) -> None:
    """Every request to a model may say that it must not leave this machine."""
    match bytes(local_only):
        case b"true":
            if (route := ROUTE.get()) is not None:
                route.local_only = True
        case b"false" | b"null":
            pass
        case _:
            raise InvalidValue("`local_only` is true or false.", param="local_only")


def invalid(message: str, within: str | None = None) -> InvalidValue:
    """What msgspec found wrong, as the fault of a field; `within` is the path of what was read, None for the body."""
    found = _at.search(message)
    path = ".".join(filter(None, (within, found["path"] if found else None))) or None
    text = message[: found.start()] if found else message
    if missing := re.search(r"required field `([^`]+)`", text):
        path = f"{path}.{missing[1]}" if path else missing[1]
    return InvalidValue(f"{text}." if path is None else f"{text}: `{path}`.", param=path)


def ignored(names: list[str]) -> dict[str, str]:
    """The header that tells a client what had no effect."""
    if not names:
        return {}
    safe = [re.sub(r"[^\x21-\x7e]|,", "?", name)[:64] for name in names[:_MOST_NAMES]]
    return {"x-ignored-params": ",".join(safe)}
