"""A multipart body as it comes: the file to disk, the small parts beside it checked. Nothing of it fills the memory."""

from dataclasses import dataclass, field
from typing import Any

from litestar import Request
from msgspec import UNSET, UnsetType
from multipart import (  # type: ignore[import-untyped]  # one module without types
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    parse_options_header,
)

from server.api.files.wire import FileUpload, Purpose
from server.api.listing import converted
from server.errors import InvalidValue, RequestError, UnsupportedMedia
from server.files import Incoming

_MAX_PARTS = 32
_MAX_PART = 4096
"""Bytes of a part that is not the file."""
_MAX_NAME = 255
_TEXTS = frozenset(("purpose", "expires_after[anchor]", "expires_after[seconds]"))


@dataclass
class Upload:
    """What came beside the bytes. `others` are parts that have no effect."""

    filename: str
    purpose: Purpose
    seconds: int | None
    others: list[str]


@dataclass
class _Parts:
    """The parts as they come in; `open` is the name of the one that is coming, None between two."""

    incoming: Incoming
    filename: str | None = None
    texts: dict[str, bytearray] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    open: str | None = None

    async def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        """One event of the parser: a part's head, a piece of it, or None for its end."""
        if event is None:
            self.open = None
        elif isinstance(event, MultipartSegment):
            self._begin(event.name or "", event.filename)
        elif self.open == "file":
            await self.incoming.write(event)
        elif self.open in self.texts:
            self.texts[self.open] += event
            if len(self.texts[self.open]) > _MAX_PART:
                raise InvalidValue(f"The part `{self.open}` is longer than {_MAX_PART} bytes.", param=self.open)

    def _begin(self, name: str, filename: str | None) -> None:
        if name in self.texts or (name == "file" and self.filename is not None):
            raise InvalidValue(f"The part `{name}` is there twice.", param=name)
        if name == "file":
            if filename is None:
                raise InvalidValue("The part `file` has no filename: send it as a file.", param="file")
            self.filename = plain_name(filename)
        elif name in _TEXTS:
            self.texts[name] = bytearray()
        else:
            self.others.append(name)
        self.open = name


async def received(request: Request[Any, Any, Any], incoming: Incoming) -> Upload:
    """Read the whole body, its file into `incoming`. Raises InvalidValue, RequestError or UnsupportedMedia."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get("boundary")
    if kind != "multipart/form-data" or not boundary:
        raise UnsupportedMedia("Send the file as `multipart/form-data` with its boundary.")
    parts = _Parts(incoming)
    try:
        with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
            async for piece in request.stream():
                # What follows the last boundary has no meaning, and is read so that the connection can go on.
                for event in parser.parse(piece) if not parser.closed else ():
                    await parts.take(event)
    except MultipartError as error:
        raise RequestError(f"The body is not sound multipart/form-data: {error}.") from error
    return _checked(parts)


def _checked(parts: _Parts) -> Upload:
    if parts.filename is None:
        raise InvalidValue("The part `file` is missing.", param="file")
    try:
        sent = {name: bytes(text).decode("utf-8") for name, text in parts.texts.items()}
    except UnicodeDecodeError as error:
        raise RequestError(f"A part of the body is not valid UTF-8: {error.reason}.") from error
    found = converted(sent | {"file": parts.filename}, FileUpload)
    if (found.anchor is UNSET) != (found.seconds is UNSET):
        raise InvalidValue("An expiry is an `anchor` and `seconds`.", param="expires_after")
    return Upload(
        filename=parts.filename,
        purpose=found.purpose,
        seconds=None if isinstance(found.seconds, UnsetType) else found.seconds,
        others=parts.others,
    )


def plain_name(sent: str) -> str:
    """The last part of a name a client sent, which is shown and never used as a path."""
    last = sent.replace("\\", "/").rsplit("/", 1)[-1]
    shown = "".join(char for char in last if char.isprintable()).strip()
    return shown[-_MAX_NAME:] if shown.strip(".") else "upload"
