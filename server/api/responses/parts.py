"""Parts of an item's content as a model gets them: text, text that lies in a file, and what few models read."""

import asyncio
import base64
import binascii
import mimetypes
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from server.errors import InvalidValue, UnsupportedParameter
from server.files import Files

TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_LARGEST = 32 * 2**20
"""Bytes of a file that stands in a conversation."""


class Part(msgspec.Struct):
    """Any part a client sends; which fields it has, its type says."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | None = None
    detail: str | None = None
    input_audio: dict[str, Any] | None = None
    filename: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class Attached(msgspec.Struct, frozen=True):
    """A file that a part refers to by its id."""

    filename: str
    content: bytes


def checked(part: Part, where: str) -> None:
    """Raises InvalidValue where the part lacks what its type needs, UnsupportedParameter for an unknown type."""
    match part:
        case Part(type=kind) if kind in TEXTS:
            needed, there = "text", part.text is not None
        case Part(type="refusal"):
            needed, there = "refusal", part.refusal is not None
        case Part(type="input_image"):
            needed, there = "image_url", part.image_url is not None or part.file_id is not None
        case Part(type="input_file", file_url=str()):
            raise UnsupportedParameter("This server fetches nothing: send the file as `file_data`.", param=where)
        case Part(type="input_file"):
            needed, there = "file_data", part.file_data is not None or part.file_id is not None
        case Part(type="input_audio"):
            needed, there = "input_audio", part.input_audio is not None
        case _:
            raise UnsupportedParameter(f"There are no parts of type `{part.type[:60]}` here: `{where}`.", param=where)
    if not there:
        raise InvalidValue(f"A part of type `{part.type}` needs `{needed}`: `{where}`.", param=f"{where}.{needed}")


def given(part: Part, attached: Mapping[str, Attached], where: str) -> dict[str, Any]:
    """The part in the form of a chat request. What a file holds is text where it is UTF-8."""
    if part.type == "input_audio":
        return {"type": "input_audio", "input_audio": part.input_audio}
    if part.type == "input_image":
        url = part.image_url or _data_url(attached[part.file_id or ""])
        return {"type": "image_url", "image_url": {"url": url, "detail": part.detail or "auto"}}
    if part.type != "input_file":
        return {"type": "text", "text": part.text or part.refusal or ""}
    file = Attached(part.filename or "file", _bytes(part.file_data, where)) if part.file_data else None
    file = file or attached[part.file_id or ""]
    try:
        text = file.content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return {"type": "text", "text": f"{file.filename}\n\n{text}"}
    return {"type": "file", "file": {"filename": file.filename, "file_data": _data_url(file)}}


def _bytes(data: str, where: str) -> bytes:
    """Of base64, or of a URL that holds it."""
    encoded = data.partition(";base64,")[2] if data.startswith("data:") else data
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue("`file_data` should be base64, or a data: URL of it.", param=f"{where}.file_data") from error


def _data_url(file: Attached) -> str:
    kind = mimetypes.guess_type(file.filename)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(file.content).decode()}"


async def attached(files: Files, names: Iterable[str]) -> dict[str, Attached]:
    """The files of these ids. Raises NotFound, or InvalidValue where one is too large for any conversation."""
    found = {}
    for name in names:
        file = await files.find(name)
        if file.bytes > _LARGEST:
            raise InvalidValue(f"The file `{name}` is too large for a conversation.", param="input")
        content = await asyncio.to_thread(files.path(file).read_bytes)
        found[name] = Attached(file.filename, content)
    return found
