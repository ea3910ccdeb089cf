"""Bytes to wire types, strictly: a wrong type is a 400 that names the field, an unknown field a name in a header."""

import re
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request

from server.errors import InvalidValue, RequestError, UnsupportedMedia

T = TypeVar("T", bound=msgspec.Struct)

_MOST_NAMES = 20
_at = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


@cache
def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(kind, strict=True)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


async def decode(request: Request[Any, Any, Any], kind: type[T]) -> tuple[T, list[str]]:
    """The body as `kind`, and the names of the fields it has besides.

    Raises InvalidValue with the field's path, or RequestError where the body is no JSON object at all.
    """
    media = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media and media != "application/json" and not media.endswith("+json"):
        raise UnsupportedMedia(f"Send the header `Content-Type: application/json`; this body is labelled {media[:80]}.")
    return parse(await request.body(), kind)


def parse(body: bytes, kind: type[T]) -> tuple[T, list[str]]:
    """As `decode`, from bytes."""
    try:
        value = _decoder(kind).decode(body)
        known = kind.__struct_fields__
        return value, [name for name in _fields.decode(body) if name not in known]
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except msgspec.DecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"The body is not valid UTF-8: {error.reason} at byte {error.start}.") from error
    except RecursionError as error:
        raise RequestError("The body is nested too deeply.") from error


def _invalid(message: str) -> InvalidValue:
    found = _at.search(message)
    path = found["path"] if found else None
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
