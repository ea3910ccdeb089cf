"""Pictures in requests: from the URL a client sends to the file that travels to the worker.

Looks at first bytes and lengths alone: what a file holds is read by the worker of the model that sees it. Fetches
nothing: a server that fetches what a client names can be made to reach what the client cannot.
"""

import base64
import binascii
import secrets
from typing import Any
from urllib.parse import unquote_to_bytes

from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Image

LARGEST = 20 * 2**20
"""Bytes of one file."""
MOST = 64
"""Pictures of one request."""
_SIDES = {"low": 512, "auto": 2048, "high": 2048, "original": 2048}
"""Pixels of the longer side by `detail`: OpenAI's own for the first three, and no more than that for any."""


def kind_of(data: bytes) -> str | None:
    """The media type of a file that begins so; None where it is no picture of a kind that is read."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def image_of(part: dict[str, Any], param: str) -> Image:
    """The picture of an `image_url` part in OpenAI's form, which stands at `param`, with a mark of its own.

    Raises InvalidValue where it holds none, UnsupportedParameter where it names one that would have to be fetched.
    """
    told = part.get("image_url")
    url, detail = (told.get("url"), told.get("detail")) if isinstance(told, dict) else (told, part.get("detail"))
    if not isinstance(url, str) or not url:
        raise InvalidValue(f"An image part needs `image_url.url`: `{param}`.", param=param)
    side = _SIDES.get(detail or "auto") if isinstance(detail, str | None) else None
    if side is None:
        raise InvalidValue(f"`detail` is low, high, original or auto: `{param}`.", param=param)
    if not url[:5].lower() == "data:":
        raise UnsupportedParameter(
            f"This server fetches nothing: send the picture as a data URL, data:image/png;base64,...: `{param}`.",
            param=param,
        )
    return Image(_decoded(url, param), f"<picture {secrets.token_hex(12)}>", side, param)


def _decoded(url: str, param: str) -> bytes:
    """The file in a data URL (RFC 2397). What its first bytes say counts, not the type that the URL gives."""
    head, comma, body = url[5:].partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise InvalidValue(f"The data URL should be data:TYPE;base64,DATA: `{param}`.", param=param)
    if len(body) > LARGEST * 3:  # escapes may make each letter three
        raise _large(param)
    try:
        data = base64.b64decode(unquote_to_bytes(body) if "%" in body else body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"The picture is no valid base64: `{param}`.", param=param) from error
    if len(data) > LARGEST:
        raise _large(param)
    if kind_of(data) is None:
        raise InvalidValue(f"This is no PNG, JPEG, WebP or GIF file: `{param}`.", param=param)
    return data


def _large(param: str) -> InvalidValue:
    return InvalidValue(f"A picture may have {LARGEST // 2**20} MiB: `{param}`.", param=param)
