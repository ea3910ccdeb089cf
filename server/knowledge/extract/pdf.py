"""PDF: the text of each page, its headings where bookmarks tell them. Reads no pictures (no OCR).

PDFium is not made for threads: one document is read at a time.
"""

import re
from collections import Counter
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING

from server.knowledge.document import Unreadable
from server.knowledge.extract.reading import Reading
from server.knowledge.outline import Block, Kind, blocks

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument

_TURN = Lock()
_BROKEN = "it is a broken PDF"
_MAX_PAGES = 10_000
_MAX_CHARACTERS = 32 * 1024 * 1024
_MAX_BOOKMARKS = 20_000
_EDGE_LINES = 2
"""Lines at the top and the bottom of a page that may be its header and footer."""
_EDGE_PAGES = 3
_SPACES = re.compile(r"[ \t\u00a0]+")
_DIGITS = re.compile(r"\d+")
_HYPHEN = re.compile(r"(?<=\w)(?:\ufffe|[-\u2010]\n)(?=\w)")
"""A hyphen at a line's end within a word. PDFium puts one character for the hyphen and the line's end."""
_SOFT_HYPHEN = re.compile(r"\u00ad\n?")

_Mark = tuple[int, int, str]
"""Of a bookmark: its page from 0, its level from 1, its title."""


def read_pdf(raw: bytes) -> Reading:
    """The text, page after page. Raises Unreadable where it is broken, encrypted, or holds pictures alone."""
    import pypdfium2

    with _TURN:
        try:
            document = pypdfium2.PdfDocument(raw)
        except pypdfium2.PdfiumError as error:
            is_locked = getattr(error, "err_code", None) == pypdfium2.raw.FPDF_ERR_PASSWORD
            raise Unreadable("it is encrypted: it opens with a password only" if is_locked else _BROKEN) from error
        try:
            texts, marks = _texts(document), _bookmarks(document)
            title = document.get_metadata_value("Title")
        except pypdfium2.PdfiumError as error:
            raise Unreadable(_BROKEN) from error
        finally:
            document.close()
    if not any(text.strip() for text in texts):
        raise Unreadable("there is no text in it, only pictures: scans are not read (no OCR)")
    return _laid_out(_without_edges([_lines(text) for text in texts]), marks, " ".join(title.split()))


def _texts(document: "PdfDocument") -> list[str]:
    if len(document) > _MAX_PAGES:
        raise Unreadable(f"it has {len(document)} pages, at most {_MAX_PAGES} are read")
    texts: list[str] = []
    size = 0
    for number in range(len(document)):
        page = document[number]
        textpage = page.get_textpage()
        texts.append(textpage.get_text_range(errors="ignore"))
        textpage.close()
        page.close()
        size += len(texts[-1])
        if size > _MAX_CHARACTERS:
            raise Unreadable(f"it has more than {_MAX_CHARACTERS} characters of text")
    return texts


def _bookmarks(document: "PdfDocument") -> list[_Mark]:
    marks: list[_Mark] = []
    for bookmark in document.get_toc():
        if len(marks) >= _MAX_BOOKMARKS:
            break
        dest = bookmark.get_dest()
        page = dest.get_index() if dest is not None else None
        title = " ".join(bookmark.get_title().split())
        if page is not None and title:
            marks.append((page, bookmark.level + 1, title))
    return marks


def _lines(text: str) -> list[str]:
    text = _SOFT_HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", ""))
    return [_SPACES.sub(" ", line).strip() for line in _HYPHEN.sub(_joint, text).replace("\ufffe", "-").split("\n")]


def _joint(found: re.Match[str]) -> str:
    """A word goes on in small letters; before a capital or a digit the hyphen was its own."""
    before, after = found.string[found.start() - 1], found.string[found.end()]
    return "" if before.isalpha() and after.islower() else "-"


def _without_edges(pages: Sequence[list[str]]) -> list[list[str]]:
    """The pages without the lines that stand at the top or the bottom of most of them, numbers aside."""
    found = [list(page) for page in pages]
    if len(pages) < _EDGE_PAGES:
        return found
    for at in (0, -1):
        for _ in range(_EDGE_LINES):
            for page in found:
                while page and not page[at]:
                    page.pop(at)
            seen = Counter(_DIGITS.sub("#", page[at]) for page in found if page)
            line, times = max(seen.items(), key=lambda item: item[1], default=("", 0))
            if times * 2 <= len(pages) or times < _EDGE_PAGES:
                break
            for page in found:
                if page and _DIGITS.sub("#", page[at]) == line:
                    page.pop(at)
    return found


def _laid_out(pages: Sequence[list[str]], marks: Sequence[_Mark], title: str) -> Reading:
    """The pages as one text; a sentence may go on from one page to the next."""
    parts: list[str] = []
    starts: list[int] = []
    size = 0
    for page in pages:
        body = "\n".join(page).strip("\n")
        ended = not parts or parts[-1].rstrip().endswith((".", "!", "?", ":", "。", "！", "？"))
        gap = "" if not size else "\n\n" if ended else "\n"
        starts.append(size + len(gap) if body else size)
        if body:
            parts += [gap, body]
            size += len(gap) + len(body)
    text = "".join(parts)
    outline = _with_headings(text, blocks(text, 0, markdown=False), _places(text, starts, marks)) if marks else None
    return Reading(text=text, title=title, outline=outline, pages=tuple(starts))


def _places(text: str, starts: Sequence[int], marks: Sequence[_Mark]) -> list[Block]:
    """The headings that bookmarks tell: the line of the page that shows the title, or the page's beginning."""
    found: list[Block] = []
    least = 0
    for page, level, title in marks:
        if page >= len(starts):
            continue
        start = max(least, starts[page])
        end = starts[page + 1] if page + 1 < len(starts) else len(text)
        words = r"\s+".join(re.escape(word) for word in title.split())
        shown = re.compile(rf"(?im)^[ \t]*(?:[\d.]+\s+)?{words}[ \t]*$").search(text, start, max(start, end))
        block = Block(Kind.HEADING, *(shown.span() if shown else (start, start)), level, title)
        found.append(block)
        least = block.end
    return found


def _with_headings(text: str, found: Sequence[Block], headings: Sequence[Block]) -> tuple[Block, ...]:
    """The blocks, cut where a heading stands."""
    result: list[Block] = []
    waiting = list(reversed(headings))
    for block in found:
        at = block.start
        while waiting and waiting[-1].start < block.end:
            heading = waiting.pop()
            if text[at : heading.start].strip():
                result.append(Block(block.kind, at, heading.start))
            result.append(heading)
            at = max(at, heading.end)
        if text[at : block.end].strip():
            result.append(Block(block.kind, at, block.end))
    return tuple(result)
