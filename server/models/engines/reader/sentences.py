"""Text to the units that can be quoted: sentences, list items, table rows, code blocks, with their characters."""

import re
from dataclasses import dataclass

_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|cf|vs|approx|ca|al|Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Rev|Gen|Col|Lt|Capt|No|Nr|Fig|Eq|Sec|Vol|ed|pp?"
    r"|Inc|Ltd|Co|Corp|U\.S|U\.K|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|\b[A-Z])\.$"
)
_LONGEST_ABBREVIATION = 12
# A sentence may close its quotation marks and brackets, and carry footnote marks, after the point that ends it.
_END = re.compile(r"""[.!?…]+["')\]”’»*_]*(?:\[\d+\])*(?=\s|$)|[。！？]+[」』”’）]*""")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s+\S")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"\s{0,3}(?:=+|-{2,})\s*$")
_ROW = re.compile(r"\s*\|.*\|\s*$")
_RULE = re.compile(r"[\s|:*_=-]*$")
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Unit:
    """`text[start:end]` of the passage it came from; `quotable` is False for headings and rules."""

    start: int
    end: int
    quotable: bool = True


@dataclass
class _Block:
    start: int
    end: int
    kind: str


def split(text: str) -> list[Unit]:
    """The units of `text` in order; together they cover all of it that is not white space."""
    units: list[Unit] = []
    for block in _blocks(text):
        if block.kind == "prose":
            units += _sentences(text, block.start, block.end)
        else:
            units += _stripped(text, block.start, block.end, block.kind != "heading")
    return units


def is_led_to(unit: str) -> bool:
    """Whether a unit is what a sentence may lead to: an item of a list, or code."""
    return (_ITEM.match(unit) or _FENCE.match(unit)) is not None


def _blocks(text: str) -> list[_Block]:
    """Runs of lines that belong together: prose paragraphs, single items, rows and headings, whole code blocks."""
    blocks: list[_Block] = []
    at, fenced, open_prose = 0, False, False
    for line in text.splitlines(keepends=True):
        end = at + len(line)
        fence = _FENCE.match(line) is not None
        kind = "code" if fenced or fence else _kind(line)
        if open_prose and blocks[-1].kind == "prose" and _UNDERLINE.match(line):
            _underlined(text, blocks, end)
            kind = "heading"
        elif (fenced and kind == "code") or (open_prose and kind == "prose"):
            blocks[-1].end = end
        elif kind != "blank":
            blocks.append(_Block(at, end, kind))
        fenced ^= fence
        # The lines after a list item's first one continue it, as those of a paragraph do.
        open_prose = kind in ("prose", "item")
        at = end
    return blocks


def _underlined(text: str, blocks: list[_Block], end: int) -> None:
    """The last line of the prose before an underline is a heading, the lines above it are not."""
    prose = blocks[-1]
    title = text.rfind("\n", prose.start, prose.end - 1) + 1
    if title > prose.start:
        prose.end = title
        blocks.append(_Block(title, end, "heading"))
    else:
        blocks[-1] = _Block(prose.start, end, "heading")


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
        if _goes_on(text, begin, match.end(), end):
            continue
        units += _stripped(text, begin, match.end(), True)
        begin = match.end()
    return units + _stripped(text, begin, end, True)


def _goes_on(text: str, begin: int, stop: int, end: int) -> bool:
    """Whether the point before `stop` ends no sentence: an abbreviation's, or one with a small letter after it."""
    if _ABBREVIATION.search(text, max(begin, stop - _LONGEST_ABBREVIATION), stop):
        return True
    following = _SPACE.match(text, stop, end)
    after = following.end() if following else stop
    return after < end and text[after].islower()


def _stripped(text: str, start: int, end: int, quotable: bool) -> list[Unit]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return [Unit(start, end, quotable)] if end > start else []
