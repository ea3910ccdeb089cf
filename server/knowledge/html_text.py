"""All visible text of an HTML page as simple Markdown, for pages whose main text cannot be told. Builds no tree.

One pass in time proportional to the page, whatever its markup: the standard library's parser takes hours on some.
"""

import html
import re
from collections.abc import Iterator
from enum import Enum

_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
_RAW = {name: re.compile(rf"</{name}\b", re.IGNORECASE) for name in ("script", "style", "template", "noscript", "svg")}
"""Elements whose content is never read as text."""
_FLAT = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
    | {"p", "li", "td", "th", "tr", "dd", "dt", "option"}
)
"""Elements without an end tag, or that the next of their kind ends: however many, they do not nest."""
_BREAKS = frozenset(
    {"address", "article", "aside", "blockquote", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form"}
    | {"header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "title", "tr", "ul"}
)
_SPACES = re.compile(r"\s+")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


class _Kind(Enum):
    TEXT = "text"
    OPEN = "open"
    CLOSE = "close"


class HtmlText:
    """`text` is blocks separated by blank lines, headings as Markdown. `elements` and `depth` count."""

    def __init__(self, source: str) -> None:
        self.depth = 0
        self.elements = 0
        self._title = ""
        self._open = 0
        self._in_title = False
        self._in_heading = False
        self._parts: list[str] = []
        for kind, value in _tokens(source):
            if kind is _Kind.TEXT:
                self._add(html.unescape(value))
            elif kind is _Kind.OPEN:
                self._enter(value)
            else:
                self._leave(value)

    @property
    def title(self) -> str:
        return " ".join(self._title.split())

    @property
    def text(self) -> str:
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def _add(self, text: str) -> None:
        if self._in_title:
            self._title += text
        else:
            # A heading ends at a line break, and one of the source is a space there.
            self._parts.append(_SPACES.sub(" ", text) if self._in_heading else text)

    def _enter(self, tag: str) -> None:
        self.elements += 1
        if tag not in _FLAT:
            self._open += 1
            self.depth = max(self.depth, self._open)
        self._in_title = tag == "title" and not self._title
        if tag in _HEADINGS or tag in _BREAKS:
            self._in_heading = tag in _HEADINGS
            self._parts.append(f"\n\n{'#' * _HEADINGS[tag]} " if self._in_heading else "\n\n")
        elif tag in {"br", "td", "th"}:
            self._parts.append("\n" if tag == "br" and not self._in_heading else " ")

    def _leave(self, tag: str) -> None:
        if tag not in _FLAT:
            self._open = max(0, self._open - 1)
        self._in_title = False
        if tag in _BREAKS or tag in _HEADINGS:
            self._in_heading = False
            self._parts.append("\n\n")


def _tokens(source: str) -> Iterator[tuple[_Kind, str]]:
    """Text and tags in order. What is begun and never ended, a comment or a tag, hides the rest of the page."""
    at = 0
    while at < len(source):
        start = source.find("<", at)
        if start != at:
            yield _Kind.TEXT, source[at:start] if start >= 0 else source[at:]
        if start < 0:
            return
        if tag := _TAG.match(source, start):
            name = tag[2].lower()
            yield _Kind.CLOSE if tag[1] else _Kind.OPEN, name
            at = _after(source, ">", tag.end())
            if name in _RAW and not tag[1]:
                closing = _RAW[name].search(source, at)
                at = closing.start() if closing else len(source)
        elif source.startswith(("<!", "<?", "</"), start):
            at = _after(source, "-->" if source.startswith("<!--", start) else ">", start)
        else:
            yield _Kind.TEXT, "<"
            at = start + 1


def _after(source: str, mark: str, at: int) -> int:
    end = source.find(mark, at)
    return len(source) if end < 0 else end + len(mark)
