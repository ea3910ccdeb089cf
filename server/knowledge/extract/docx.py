"""DOCX as Markdown: headings by their style, lists, tables, footnotes. Macros, pictures and comments are left out."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from server.knowledge.document import Unreadable
from server.knowledge.extract.archive import Archive
from server.knowledge.extract.reading import Reading

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_DOCUMENT = "word/document.xml"
_HEADING = re.compile(r"heading ([1-6])$", re.IGNORECASE)
_BLOCK_MARK = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|```|~~~|(?:=+|-{2,})\s*$)", re.MULTILINE)
_LEVELS = 9
_BASES = 20
"""Styles that rest on one another at most; they may be written as a ring."""


def is_docx(archive: Archive) -> bool:
    return _DOCUMENT in archive


def read_docx(archive: Archive) -> Reading:
    """The text as Markdown. Raises Unreadable."""
    root = archive.xml(_DOCUMENT)
    body = None if root is None else root.find(f"{_W}body")
    if body is None:
        raise Unreadable("it is a DOCX without a body that can be read")
    writer = _Writer(archive)
    parts = [part for part in writer.blocks(body) if part]
    parts += [part for part in writer.notes() if part]
    core = archive.xml("docProps/core.xml")
    title = "" if core is None else " ".join((core.findtext(_TITLE) or "").split())
    return Reading(text="\n\n".join(parts).replace("\r", ""), title=title, markdown=True)


class _Writer:
    """Turns one document's elements into Markdown, in order: the items of a list are counted on the way."""

    def __init__(self, archive: Archive) -> None:
        self._styles = _styles(archive.xml("word/styles.xml"))
        self._formats = _formats(archive.xml("word/numbering.xml"))
        self._counts: dict[tuple[str, int], int] = defaultdict(int)
        self._cited: list[tuple[str, str]] = []
        self._archive = archive

    def blocks(self, parent: Any) -> Iterator[str]:
        """Paragraphs and tables, those in content controls too; the items of one list go together."""
        items: list[str] = []
        for element in _content(parent):
            if element.tag == f"{_W}tbl":
                text, is_item = self._table(element), False
            else:
                text, is_item = self._paragraph(element)
            if is_item:
                items.append(text)
                continue
            if items:
                yield "\n".join(items)
                items = []
            yield text
        if items:
            yield "\n".join(items)

    def notes(self) -> Iterator[str]:
        """The footnotes and endnotes that the text refers to."""
        roots = {kind: self._archive.xml(f"word/{kind}s.xml") for kind in ("footnote", "endnote")}
        for kind, number in self._cited:
            root = roots[kind]
            if root is None:
                continue
            for note in root.iterfind(f"{_W}{kind}"):
                if note.get(f"{_W}id") == number:
                    text = " ".join(" ".join(self._text(each).split()) for each in note.iter(f"{_W}p"))
                    yield f"[^{_mark(kind, number)}]: {text.strip()}"

    def _paragraph(self, element: Any) -> tuple[str, bool]:
        """Its Markdown, and whether it is an item of a list."""
        text = self._text(element).strip()
        if not text:
            return "", False
        level = self._level(element)
        if level:
            return f"{'#' * level} {' '.join(text.split())}", False
        text = _BLOCK_MARK.sub(r"\1\\\2", text)
        numbered = self._numbered(element)
        return (text, False) if numbered is None else (self._item(*numbered, text), True)

    def _item(self, list_id: str, level: int, text: str) -> str:
        for deeper in range(level + 1, _LEVELS):
            self._counts.pop((list_id, deeper), None)
        self._counts[list_id, level] += 1
        is_bullet = self._formats.get((list_id, level), "bullet") in ("bullet", "none")
        mark = "-" if is_bullet else f"{self._counts[list_id, level]}."
        return f"{'  ' * level}{mark} {' '.join(text.split())}"

    def _table(self, element: Any) -> str:
        rows = [self._row(row) for row in element.iterfind(f"{_W}tr")]
        rows = [row for row in rows if any(row)]
        if not rows:
            return ""
        width = max(len(row) for row in rows)
        lines = [f"| {' | '.join(row + [''] * (width - len(row)))} |" for row in rows]
        return "\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]])

    def _row(self, row: Any) -> list[str]:
        cells: list[str] = []
        for cell in row.iterfind(f"{_W}tc"):
            text = " ".join(" ".join(self._text(each).split()) for each in cell.iter(f"{_W}p"))
            span = _value(cell.find(f"{_W}tcPr/{_W}gridSpan"))
            cells += [text.strip().replace("|", "\\|")] + [""] * (min(int(span), 100) - 1 if span.isdigit() else 0)
        return cells

    def _text(self, paragraph: Any) -> str:
        """What the paragraph says now: insertions and links, not what was deleted, and nothing twice."""
        parts: list[str] = []
        waiting = [*reversed(list(paragraph))]
        while waiting:
            element = waiting.pop()
            name = str(element.tag).removeprefix(_W)
            if name == "t":
                parts.append(element.text or "")
            elif name in ("tab", "br", "cr", "noBreakHyphen"):
                parts.append({"tab": "\t", "noBreakHyphen": "-"}.get(name, "\n"))
            elif name in ("footnoteReference", "endnoteReference"):
                kind, number = name.removesuffix("Reference"), element.get(f"{_W}id", "")
                self._cited.append((kind, number))
                parts.append(f"[^{_mark(kind, number)}]")
            elif name not in ("pPr", "rPr", "del", "p", "tbl") and element.tag != _FALLBACK:
                waiting += reversed(list(element))
            elif name == "p":
                parts.append("\n")
                waiting += reversed(list(element))  # a text box within the paragraph
        return "".join(parts)

    def _level(self, paragraph: Any) -> int:
        """1 to 6 for a heading, 0 for other text."""
        own = _value(paragraph.find(f"{_W}pPr/{_W}outlineLvl"))
        for name, level, _ in self._styles_of(paragraph):
            if name == "title":
                return 1
            if found := _HEADING.match(name):
                return int(found[1])
            own = own or level
        return int(own) + 1 if own in ("0", "1", "2", "3", "4", "5") else 0

    def _numbered(self, paragraph: Any) -> tuple[str, int] | None:
        """The list and the depth of an item."""
        found = [paragraph.find(f"{_W}pPr/{_W}numPr"), *(numbers for _, _, numbers in self._styles_of(paragraph))]
        for numbers in found:
            if numbers is None:
                continue
            list_id = _value(numbers.find(f"{_W}numId"))
            level = _value(numbers.find(f"{_W}ilvl"))
            if list_id:
                return None if list_id == "0" else (list_id, min(_LEVELS - 1, int(level)) if level.isdigit() else 0)
        return None

    def _styles_of(self, paragraph: Any) -> Iterator["_Style"]:
        """Its style, then those it rests on."""
        name = _value(paragraph.find(f"{_W}pPr/{_W}pStyle"))
        for _ in range(_BASES):
            style = self._styles.get(name)
            if style is None:
                return
            yield style[0]
            name = style[1]


_Style = tuple[str, str, Any]
"""A style's name, its outline level as it is written, and its numbering."""


def _content(parent: Any) -> Iterator[Any]:
    """The paragraphs and tables below `parent`; what holds them (a content control, an insertion) is passed through."""
    for element in parent:
        if element.tag in (f"{_W}p", f"{_W}tbl"):
            yield element
        elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
            yield from _content(element)


def _styles(root: Any) -> dict[str, tuple[_Style, str]]:
    """By id: each paragraph style, and the id of the one it rests on."""
    found: dict[str, tuple[_Style, str]] = {}
    for style in () if root is None else root.iterfind(f"{_W}style"):
        name = _value(style.find(f"{_W}name")).lower()
        level = _value(style.find(f"{_W}pPr/{_W}outlineLvl"))
        numbers = style.find(f"{_W}pPr/{_W}numPr")
        found[style.get(f"{_W}styleId", "")] = (name, level, numbers), _value(style.find(f"{_W}basedOn"))
    return found


def _formats(root: Any) -> dict[tuple[str, int], str]:
    """How the items of each list and depth are numbered: `bullet`, `decimal` and so on."""
    if root is None:
        return {}
    kinds: dict[str, dict[int, str]] = {}
    for abstract in root.iterfind(f"{_W}abstractNum"):
        levels = {
            int(level.get(f"{_W}ilvl")): _value(level.find(f"{_W}numFmt"))
            for level in abstract.iterfind(f"{_W}lvl")
            if level.get(f"{_W}ilvl", "").isdigit()
        }
        kinds[abstract.get(f"{_W}abstractNumId", "")] = levels
    return {
        (number.get(f"{_W}numId", ""), level): kind
        for number in root.iterfind(f"{_W}num")
        for level, kind in kinds.get(_value(number.find(f"{_W}abstractNumId")), {}).items()
    }


def _value(element: Any) -> str:
    """The attribute `val` of an element; empty where there is none."""
    return "" if element is None else str(element.get(f"{_W}val", ""))


def _mark(kind: str, number: str) -> str:
    return number if kind == "footnote" else f"end-{number}"
