"""Messages as changes of documents: JSON objects, or raw text under a key. Knows no broker and no store."""

from dataclasses import dataclass, replace

import msgspec
from msgspec import UNSET, UnsetType

from server.knowledge.attributes import Types, check
from server.knowledge.document import AttributeValue, Document, Unreadable, given_vector
from server.knowledge.extract import read_document

_MAX_ID = 512
_MAX_VERSION = 2**63 - 1
_SUFFIXES = {"text/markdown": ".md", "text/html": ".html", "text/plain": ".txt"}


class Poison(Exception):
    """A message that will never become a change; the text says why."""


@dataclass(frozen=True)
class Message:
    """One message. `offset` orders those of a `partition`; `at` is when it was sent, in seconds since 1970.

    A `value` of None is a tombstone.
    """

    partition: str
    offset: int
    key: str | None
    value: bytes | None
    content_type: str | None
    at: float


@dataclass(frozen=True)
class Change:
    """What a message asks for: `document` in place of what `id` is now, or nothing of that id any more."""

    id: str
    document: Document | None
    version: int | None
    message: Message


class _Record(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    text: str | UnsetType | None = UNSET
    title: str | None = None
    attributes: dict[str, AttributeValue] | None = None
    licence: str | None = None
    vector: list[float] | None = None
    version: int | None = None


def read(message: Message, source: str, types: Types) -> Change:
    """What a message asks for; the document says that it comes from `source`. Raises Poison. Blocks."""
    if message.value is None:
        return Change(_id(message.key), None, None, message)
    media = (message.content_type or "").partition(";")[0].strip().lower()
    if media in _SUFFIXES:
        return _raw(message, message.value, _SUFFIXES[media], source, types)
    if media == "application/json" or (not media and message.value.lstrip()[:1] == b"{"):
        return _record(message, message.value, source, types)
    if not media:
        return _raw(message, message.value, ".md", source, types)
    raise Poison(f"its content type {media[:80]} is neither application/json nor {', '.join(_SUFFIXES)}")


def _record(message: Message, value: bytes, source: str, types: Types) -> Change:
    try:
        record = msgspec.json.decode(value, type=_Record)
    except msgspec.ValidationError as error:
        raise Poison(f"its JSON is not {{id, text, title, attributes, licence, vector, version}}: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Poison(f"it is not JSON: {error}") from error
    each = _id(record.id)
    if record.version is not None and not 0 <= record.version <= _MAX_VERSION:
        raise Poison(f"its version is not between 0 and {_MAX_VERSION}")
    if record.text is UNSET:
        raise Poison("`text` is missing; null deletes the document")
    if record.text is None:
        return Change(each, None, record.version, message)
    found = _document(each, record.text.encode("utf-8", "replace"), ".md", source, types)
    attributes = {**found.attributes, **(record.attributes or {})}
    licence = record.licence or found.licence
    try:
        vector = None if record.vector is None else given_vector(record.vector)
        title = record.title or found.title
        document = replace(found, title=title, attributes=attributes, licence=licence, vector=vector, hash="")
        check(document.attributes, types)
    except Unreadable as error:
        raise Poison(str(error)) from error
    return Change(each, document, record.version, message)


def _raw(message: Message, value: bytes, suffix: str, source: str, types: Types) -> Change:
    each = _id(message.key)
    return Change(each, _document(each, value, suffix, source, types), None, message)


def _document(each: str, raw: bytes, suffix: str, source: str, types: Types) -> Document:
    try:
        found = read_document(raw, each, f"{each}{suffix}", types)
    except Unreadable as error:
        raise Poison(str(error)) from error
    if not found.text[found.body :].strip():
        raise Poison("there is no text in it; null deletes the document")
    return replace(found, uri=each, filename=each, source=source, hash="")


def _id(each: str | None) -> str:
    if each is None:
        raise Poison("it has no id: raw text and tombstones need a key")
    if not 1 <= len(each) <= _MAX_ID or not each.isprintable():
        raise Poison(f"its id has not 1 to {_MAX_ID} printable characters")
    return each
