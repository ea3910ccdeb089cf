"""What lies in a file, as a document: Markdown with front matter, text, HTML. Knows neither chunks nor the store."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path, PurePath

import yaml

from server.knowledge.attributes import Types, typed
from server.knowledge.document import AttributeValue, Document, Unreadable, Unsupported, document_id
from server.knowledge.html_text import HtmlText
from server.knowledge.outline import Kind, blocks

MAX_BYTES = 32 * 1024 * 1024
_MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd"})
_HTML = frozenset({".html", ".htm", ".xhtml"})
_BINARY_SAMPLE = 8192
_MAX_FRONT_MATTER = 64 * 1024
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
# Beyond these trafilatura recurses too deep, or takes minutes (its time grows with the square of the elements); the
# flat reader takes over.
_TREE_DEPTH = 200
_TREE_ELEMENTS = 20_000
_TREE_CHARACTERS = 8 * 1024 * 1024


def fingerprint(path: Path) -> str:
    """The hash of a file's bytes. Raises Unreadable. Blocks."""
    return _hash(_bytes(path))


def extract(path: Path, uri: str, source: str, types: Types) -> Document:
    """The document in the file at `path`, which is absolute and resolved; `types` are the declared attributes.

    Spans of Markdown and plain text are characters of the file itself, read with universal newlines; those of HTML are
    characters of its text. Raises Unreadable. Blocks, for seconds where the file is large: not for the event loop.
    """
    raw = _bytes(path)
    read = read_document(raw, document_id(path), path.name, types)
    return replace(read, uri=uri, source=source, path=str(path))


def extract_upload(path: Path, each: str, filename: str, types: Types) -> Document:
    """As `extract`, for an upload: its bytes lie at `path` under another name, and its id is `each`."""
    return read_document(_bytes(path), each, filename, types)


def read_document(raw: bytes, each: str, filename: str, types: Types) -> Document:
    """As `extract`, of a file's bytes; its name says how they are read."""
    text = _decoded(raw)
    name = PurePath(filename)
    suffix = name.suffix.lower()
    title, body, attributes = "", 0, {}
    if suffix in _HTML:
        text, title = _from_html(text)
    elif suffix in _MARKDOWN:
        matter, body = _front_matter(text)
        attributes = _declared(matter, types or {})
        title = _title(matter.get("title"))
    markdown = suffix in _HTML or suffix in _MARKDOWN
    return Document(
        id=each,
        uri=filename,
        filename=filename,
        text=text,
        title=title or (_first_heading(text, body) if markdown else "") or name.stem,
        markdown=markdown,
        body=body,
        attributes=attributes,
        hash=_hash(raw),
    )


def _hash(raw: bytes) -> str:
    return blake2b(raw, digest_size=16).hexdigest()


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise Unreadable("it is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise Unreadable(f"it is larger than {MAX_BYTES // 1024**2} MiB")
    return raw


def _decoded(raw: bytes) -> str:
    if raw.startswith(_UTF16):
        encoding = "utf-16"
    elif b"\0" in raw[:_BINARY_SAMPLE] or raw.startswith(b"%PDF-"):
        raise Unsupported("it is binary, not Markdown, text or HTML")
    else:
        encoding = "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _front_matter(text: str) -> tuple[dict[str, object], int]:
    """The YAML mapping between lines of `---` at the top, and where the body begins."""
    found = _FRONT_MATTER.match(text, 0, _MAX_FRONT_MATTER)
    if found is None:
        return {}, 0
    try:
        # The loader in Python: a document nested too deep raises here and would end the process in the C one.
        value = yaml.load(found[1], Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 2})"
        raise Unreadable(f"its front matter is not valid YAML{place}") from error
    if value is None:
        return {}, found.end()
    if not isinstance(value, dict):
        return {}, 0  # a rule, then prose: not front matter
    return {str(key): each for key, each in value.items()}, found.end()


def _declared(matter: Mapping[str, object], types: Mapping[str, str]) -> dict[str, AttributeValue]:
    """The declared attributes that the front matter gives; other keys are the author's own."""
    return {name: typed(name, matter[name], kind) for name, kind in types.items() if matter.get(name) is not None}


def _title(value: object) -> str:
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _first_heading(text: str, body: int) -> str:
    return next((block.title for block in blocks(text, body, markdown=True) if block.kind is Kind.HEADING), "")


def _from_html(source: str) -> tuple[str, str]:
    """The page's text as Markdown, and its title. Navigation and footers are dropped where the page lets us tell."""
    flat = HtmlText(source)
    fits_a_tree = flat.depth <= _TREE_DEPTH and flat.elements <= _TREE_ELEMENTS and len(source) <= _TREE_CHARACTERS
    return (_main_text(source) if fits_a_tree else "") or flat.text, flat.title


def _main_text(source: str) -> str:
    import trafilatura

    # It reports every page without a main text as an error; here that is an ordinary answer.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.extract(source, output_format="markdown", include_tables=True, include_comments=False)
    except (ValueError, RecursionError, AssertionError):
        return ""  # what lxml raises on trees it cannot build or walk
    return found or ""
