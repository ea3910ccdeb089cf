"""Which format a file is in, told by its first bytes and its name, and how each is read."""

from collections.abc import Mapping
from dataclasses import replace

from server.knowledge.document import Unreadable, Unsupported
from server.knowledge.extract.archive import Archive
from server.knowledge.extract.decoded import declared_charset, decoded
from server.knowledge.extract.docx import is_docx, read_docx
from server.knowledge.extract.front_matter import front_matter, spdx_licence
from server.knowledge.extract.html_page import read_html
from server.knowledge.extract.json_lines import read_json_lines
from server.knowledge.extract.json_paths import read_json
from server.knowledge.extract.pdf import read_pdf
from server.knowledge.extract.reading import Reading
from server.knowledge.extract.source_code import LANGUAGES, outline
from server.knowledge.extract.tables import read_table

MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_TABLES = frozenset({".csv", ".tsv", ".tab"})
_JSON_LINES = frozenset({".jsonl", ".ndjson"})
_WORD = frozenset({".docx", ".docm"})
_PDF_WITHIN = 1024
"""Bytes that may stand before the mark of a PDF."""

SUFFIX_OF_MEDIA: Mapping[str, str] = {
    "text/markdown": ".md",
    "text/html": ".html",
    "application/xhtml+xml": ".xhtml",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "application/jsonl": ".jsonl",
    "application/x-ndjson": ".jsonl",
}
"""The media types that say by themselves how a file is read. JSON is not one: over HTTP it holds the document."""


def read(raw: bytes, suffix: str, charset: str | None) -> Reading:
    """The text of a file whose name ends with `suffix`, in small letters. Raises Unreadable."""
    if b"%PDF-" in raw[:_PDF_WITHIN] and (suffix == ".pdf" or raw.startswith(b"%PDF-")):
        return read_pdf(raw)
    if suffix == ".pdf":
        raise Unreadable("it is a broken PDF, or none: it does not begin as one")
    if raw.startswith(b"PK\x03\x04"):
        return _office(raw)
    if suffix in _WORD:
        locked = raw.startswith(b"\xd0\xcf\x11\xe0")
        raise Unreadable("it is encrypted, or of Word before 2007" if locked else "it is a broken DOCX, or none")
    return _text(decoded(raw, charset or (declared_charset(raw) if suffix in _HTML else None)), suffix)


def _office(raw: bytes) -> Reading:
    archive = Archive(raw)
    if not is_docx(archive):
        raise Unsupported("it is a ZIP archive, and no DOCX")
    return read_docx(archive)


def _text(text: str, suffix: str) -> Reading:
    if suffix in MARKDOWN:
        matter, body = front_matter(text)
        return Reading(text=text, markdown=True, body=body, matter=matter)
    if suffix in _HTML:
        # A tag stands in a comment, which no reader of the page sees.
        return replace(read_html(text), matter={"licence": spdx_licence(text)})
    if suffix in _TABLES:
        return read_table(text, tabs=suffix != ".csv")
    if suffix == ".json":
        return read_json(text)
    if suffix in _JSON_LINES:
        return read_json_lines(text)
    return Reading(text=text, outline=outline(text, suffix) if suffix in LANGUAGES else None)
