"""A text's outline: its blocks (headings, paragraphs, code, tables) with their places. Pure; counts no tokens."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

# Every expression here reads a line once: documents may be written to make one that goes back run for hours.
_HEADING = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}(?=[^`]*$)|~{3,})")
_DELIMITERS = re.compile(r"\s*+\|?\s*+:?-++:?\s*+(?:\|\s*+:?-++:?\s*+)*+\|?\s*+$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])\s")
_MAX_TITLE = 400


class Kind(Enum):
    HEADING = "heading"
    PROSE = "prose"
    LINES = "lines"  # code and tables: lines carry the structure
    RECORD = "record"  # a row of a table or an entry of a mapping: complete by itself


@dataclass(frozen=True)
class Block:
    """`start`:`end` are characters of the text. `level` and `title` are set for headings alone.

    A heading may be empty: then the text does not show it, and without a title it ends those of its level and below.
    """

    kind: Kind
    start: int
    end: int
    level: int = 0
    title: str = ""


@dataclass(frozen=True)
class _Line:
    start: int
    end: int
    text: str


def blocks(text: str, body: int, markdown: bool) -> list[Block]:
    """The blocks of `text[body:]` in order; blank lines belong to none. Plain text has prose alone."""
    lines = list(_lines(text, body))
    found: list[Block] = []
    at = 0
    while at < len(lines):
        if not lines[at].text.strip():
            at += 1
            continue
        block, at = _markdown(lines, at) if markdown else _prose(lines, at, markdown=False)
        found.append(block)
    return found


def is_item(line: str) -> bool:
    """Whether a line begins an item of a list."""
    return _ITEM.match(line) is not None


def _lines(text: str, body: int) -> Iterator[_Line]:
    start = body
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield _Line(start, end, text[start:end].rstrip("\r\n"))
        start = end


def _markdown(lines: list[_Line], at: int) -> tuple[Block, int]:
    """The block that begins at line `at`, which is not blank, and the line after it."""
    line = lines[at]
    if heading := _HEADING.match(line.text):
        title = _unclosed(line.text[heading.end() :].strip())
        return Block(Kind.HEADING, line.start, line.end, len(heading[1]), plain(title)), at + 1
    if fence := _FENCE.match(line.text):
        return _fenced(lines, at, fence[1])
    if _is_table(lines, at):
        return _table(lines, at)
    return _prose(lines, at, markdown=True)


def plain(title: str) -> str:
    """A heading as a reader sees it: links as their words, no emphasis or code marks; cut where it is no heading."""
    return re.sub(r"[`*]+", "", _LINK.sub(r"\1", title[:_MAX_TITLE])).strip()


def _unclosed(title: str) -> str:
    """A heading's text without the number signs that may close it."""
    text = title.rstrip("#")
    return text.rstrip() if not text or text[-1] in " \t" else title


def _fenced(lines: list[_Line], at: int, mark: str) -> tuple[Block, int]:
    closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
    end = next((n for n in range(at + 1, len(lines)) if closing.match(lines[n].text)), len(lines) - 1)
    return Block(Kind.LINES, lines[at].start, lines[end].end), end + 1


def _is_table(lines: list[_Line], at: int) -> bool:
    """A row with a bar, and below it the row of dashes."""
    following = lines[at + 1].text if at + 1 < len(lines) else ""
    return "|" in lines[at].text and "|" in following and _DELIMITERS.match(following) is not None


def _table(lines: list[_Line], at: int) -> tuple[Block, int]:
    end = at
    while end + 1 < len(lines) and "|" in lines[end + 1].text:
        end += 1
    return Block(Kind.LINES, lines[at].start, lines[end].end), end + 1


def _prose(lines: list[_Line], at: int, *, markdown: bool) -> tuple[Block, int]:
    """Lines up to a blank one or, in Markdown, up to where another kind of block begins."""
    end = at
    while end + 1 < len(lines) and lines[end + 1].text.strip():
        following = lines[end + 1].text
        if markdown and (underline := _UNDERLINE.match(following)):
            level = 1 if underline[1][0] == "=" else 2
            title = " ".join(line.text.strip() for line in lines[at : end + 1])
            return Block(Kind.HEADING, lines[at].start, lines[end + 1].end, level, plain(title)), end + 2
        if markdown and (_HEADING.match(following) or _FENCE.match(following) or _is_table(lines, end + 1)):
            break
        end += 1
    return Block(Kind.PROSE, lines[at].start, lines[end].end), end + 1
