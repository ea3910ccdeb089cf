"""Text to the units that can be quoted: sentences, list items, table rows, code blocks, with their characters."""

import re
from dataclasses import dataclass

_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|approx|ca|al|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|No|Nr|Fig|Eq|Sec|Vol|pp|Inc|Ltd|Co|Corp|U\.S|U\.K"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|\b[A-Z])\.$"
)
_END = re.compile(r"[.!?]+[\"')\]”’»]*(?=\s+|$)|[。！？]+[」』”’）]*")
_FENCE = re.compile(r"^\s*(```|~~~)")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")
_HEADING = re.compile(r"^\s{0,3}#{1,6}\s")
_ROW = re.compile(r"^\s*\|.*\|\s*$")
_RULE = re.compile(r"^[\s|:*_=-]*$")


@dataclass(frozen=True)
class Unit:
    """`text[start:end]` of the passage it came from; `quotable` is False for headings, rules and code fences."""

    start: int
    end: int
    quotable: bool = True


def split(text: str) -> list[Unit]:
    """The units of `text` in order; together they cover all of it that is not white space."""
    units: list[Unit] = []
    for start, end, kind in _blocks(text):
        if kind == "prose":
            units += _sentences(text, start, end)
        else:
            units += _stripped(text, start, end, kind != "heading")
    return units


def _blocks(text: str) -> list[tuple[int, int, str]]:
    """Runs of lines that belong together: prose paragraphs, single items, rows and headings, whole code blocks."""
    blocks: list[tuple[int, int, str]] = []
    at, fenced, open_prose = 0, False, False
    for line in text.splitlines(keepends=True):
        end = at + len(line)
        fence = bool(_FENCE.match(line))
        kind = "code" if fenced or fence else _kind(line)
        joins = (fenced and kind == "code") or (open_prose and kind == "prose")
        if joins and blocks:
            start, _, old = blocks.pop()
            blocks.append((start, end, old))
        elif kind != "blank":
            blocks.append((at, end, kind))
        if fence:
            fenced = not fenced
        # The lines after a list item's first one continue it, as those of a paragraph do.
        open_prose = not fenced and kind in ("prose", "item")
        at = end
    return blocks


def _kind(line: str) -> str:
    if not line.strip():
        return "blank"
    if _HEADING.match(line) or _RULE.match(line):
        return "heading"
    if _ROW.match(line):
        return "row"
    return "item" if _ITEM.match(line) else "prose"


def _sentences(text: str, start: int, end: int) -> list[Unit]:
    units: list[Unit] = []
    begin = start
    for match in _END.finditer(text, start, end):
        if _ABBREVIATION.search(text, max(begin, match.end() - 12), match.end()):
            continue
        following = text[match.end() : end].lstrip()
        if following[:1].islower():
            continue
        units += _stripped(text, begin, match.end(), True)
        begin = match.end()
    return units + _stripped(text, begin, end, True)


def _stripped(text: str, start: int, end: int, quotable: bool) -> list[Unit]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return [Unit(start, end, quotable)] if end > start else []
