"""A file's bytes as a document: what its format says of it, and what its author wrote at its top."""

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import PurePath

from server.knowledge.attributes import Types, typed
from server.knowledge.document import AttributeValue, Document
from server.knowledge.extract.formats import read
from server.knowledge.extract.front_matter import spdx_licence
from server.knowledge.extract.source_code import LANGUAGES
from server.knowledge.outline import Kind, blocks

_MAX_LICENCE = 500


def read_document(raw: bytes, each: str, filename: str, types: Types, charset: str | None = None) -> Document:
    """The document `each` of a file's bytes; its first bytes and its name say how they are read.

    `charset` is the encoding it was sent with. Raises Unreadable. May take seconds where the file is large.
    """
    name = PurePath(filename)
    suffix = name.suffix.lower()
    found = read(raw, suffix, charset)
    title = _said(found.matter.get("title")) or found.title
    if not title and found.markdown:
        title = _first_heading(found.text, found.body)
    return Document(
        id=each,
        uri=filename,
        filename=filename,
        text=found.text,
        title=title or (name.name if suffix in LANGUAGES else name.stem),
        markdown=found.markdown,
        body=found.body,
        outline=found.outline,
        pages=found.pages,
        licence=_licence(found.matter) or spdx_licence(found.text),
        attributes=_declared(found.matter, types or {}),
        hash=blake2b(raw, digest_size=16).hexdigest(),
    )


def _licence(matter: Mapping[str, object]) -> str:
    return next((text for key in ("licence", "license") if (text := _said(matter.get(key))[:_MAX_LICENCE])), "")


def _declared(matter: Mapping[str, object], types: Mapping[str, str]) -> dict[str, AttributeValue]:
    """The declared attributes that the front matter gives; other keys are the author's own."""
    return {name: typed(name, matter[name], kind) for name, kind in types.items() if matter.get(name) is not None}


def _said(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _first_heading(text: str, body: int) -> str:
    return next((block.title for block in blocks(text, body, markdown=True) if block.kind is Kind.HEADING), "")
