"""All visible text of an HTML page as simple Markdown, for pages whose main text cannot be told. Builds no tree."""

import re
from html.parser import HTMLParser

_SILENT = frozenset({"script", "style", "template", "noscript", "svg", "head"})
_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_BREAKS = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "fieldset", "figure", "footer", "form"}
    | {"header", "hr", "li", "main", "nav", "ol", "p", "pre", "section", "table", "tr", "ul"}
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


class HtmlText(HTMLParser):
    """Reads a page once, front to back, in memory that does not grow with nesting. `depth` is the deepest nesting."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.title = ""
        self.depth = 0
        self._open = 0
        self._silent = 0
        self._in_title = False
        self._parts: list[str] = []

    @classmethod
    def of(cls, source: str) -> "HtmlText":
        reader = cls()
        reader.feed(source)
        reader.close()
        reader.title = " ".join(reader.title.split())
        return reader

    @property
    def text(self) -> str:
        """Blocks separated by blank lines; headings as Markdown headings."""
        lines = (" ".join(line.split()) for line in "".join(self._parts).split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self._open += 1
            self.depth = max(self.depth, self._open)
        self._in_title = tag == "title" and not self.title
        self._silent += tag in _SILENT
        if tag in _HEADINGS:
            self._parts.append(f"\n\n{'#' * _HEADINGS[tag]} ")
        elif tag in _BREAKS:
            self._parts.append("\n\n" if tag != "br" else "\n")
        elif tag in {"td", "th"}:
            self._parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._open = max(0, self._open - 1)
        self._in_title = False
        self._silent = max(0, self._silent - (tag in _SILENT))
        if tag in _BREAKS or tag in _HEADINGS:
            self._parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif not self._silent:
            self._parts.append(data)
