"""Cuts a document into chunks that follow its headings. Pure: tokens are counted by the function it is given.

A chunk stays within one section (a heading and what stands under it), so that one heading path describes it. Blocks
are packed whole while they fit; a block that is larger than a chunk is cut at sentences (prose) or lines (code,
tables), then at lines, then between words. Inside a word only where the model could not read the word at all. Records
are whole wherever they fit, and none is repeated in the next chunk.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from server.knowledge.document import Chunk, Document
from server.knowledge.outline import Block, Kind, blocks, is_item

Count = Callable[[Sequence[str]], list[int]]
"""Tokens of each text, without the special tokens that frame an input."""

_SENTENCE = re.compile(r"""(?<![.!?…])[.!?…]++["'”’)\]*_`]*+\s+|[。！？]++[」』”’）]*+\s*+""")
_LINE = re.compile(r"\n+")
# Scripts without spaces between words: every character may begin a new one.
_WORD = re.compile(r"\s+|(?<=[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003134f])")
_CONTEXT_SHARE = 4
"""At most one part in so many of what the model reads is title and headings."""


@dataclass(frozen=True)
class Limits:
    """In tokens: what a chunk should have, what it repeats of the one before, what an input may have at all."""

    tokens: int
    overlap: int
    context: int


@dataclass(frozen=True)
class _Atom:
    """What is never cut further: a sentence, a line, or what they had to be cut into. `block` numbers its block."""

    start: int
    end: int
    tokens: int
    block: int


_Path = tuple[tuple[str, int], ...]
"""Headings from the outermost on: title, and where it stands in the text; -1 where the text does not show it."""


@dataclass(frozen=True)
class _Section:
    """Blocks under one heading."""

    path: _Path
    blocks: tuple[Block, ...]


def split(document: Document, limits: Limits, count: Count) -> list[Chunk]:
    """The chunks of `document` in order; together they hold every character that is not white space.

    Each chunk's context and text have at most `limits.context` tokens. A document without text has none.
    """
    found = document.outline
    if found is None:
        found = tuple(blocks(document.text, document.body, document.markdown))
    chunks = [chunk for section in _sections(found) for chunk in _section_chunks(document, section, limits, count)]
    fitting = _fitting(document.text, chunks, limits, count)
    if not document.pages:
        return list(fitting)
    return [replace(chunk, page=max(1, bisect_right(document.pages, chunk.start))) for chunk in fitting]


def whole(document: Document, count: Count) -> list[Chunk]:
    """The document as one chunk however long it is, as one needs whose vector is known; none where it has no text."""
    start, end = _trimmed(document.text, document.body, len(document.text))
    text = document.text[start:end]
    context = "" if document.title in text else document.title
    return [Chunk(text, start, end, (), context, count([text])[0])] if text else []


def pieces(text: str, tokens: int, count: Count) -> list[str]:
    """`text` cut into pieces of at most `tokens` tokens each, at sentences where possible."""
    block = Block(Kind.PROSE, 0, len(text))
    spans = _pack(_atoms(text, (block,), tokens, tokens, count), Limits(tokens, 0, tokens), frozenset())
    return [piece for start, end in spans if (piece := text[start:end].strip())]


def _sections(found: Iterable[Block]) -> Iterator[_Section]:
    """Sections in order. A heading with nothing under it stands before the next section's text."""
    path: list[tuple[int, str, int]] = []
    held: list[Block] = []
    has_text = False
    for block in found:
        if block.kind is Kind.HEADING:
            if has_text:
                yield _Section(tuple((title, at) for _, title, at in path), tuple(held))
                held, has_text = [], False
            path = [entry for entry in path if entry[0] < block.level]
            path.append((block.level, block.title, block.start if block.start < block.end else -1))
        else:
            has_text = True
        held.append(block)
    if held:
        yield _Section(tuple((title, at) for _, title, at in path), tuple(held))


def _section_chunks(document: Document, section: _Section, limits: Limits, count: Count) -> Iterator[Chunk]:
    names, used = _names(document.title, section.path, limits, count)
    target = max(1, min(limits.tokens, limits.context - used))
    most = max(target, limits.context - limits.context // _CONTEXT_SHARE)
    atoms = _atoms(document.text, section.blocks, target, most, count)
    headings = frozenset(n for n, block in enumerate(section.blocks) if block.kind is Kind.HEADING)
    path = tuple(name for name, _ in section.path if name)
    has_records = any(block.kind is Kind.RECORD for block in section.blocks)
    overlap = 0 if has_records else min(limits.overlap, target - 1)
    for span in _pack(atoms, Limits(target, overlap, limits.context), headings):
        start, end = _trimmed(document.text, *span)
        if start < end:
            # The headings that the chunk's own text shows are not said twice.
            above = " > ".join(name for name, at in names if at < start)
            yield Chunk(document.text[start:end], start, end, path, above, 0)


def _names(title: str, path: _Path, limits: Limits, count: Count) -> tuple[_Path, int]:
    """Title and headings, and their tokens; the outermost go first where they would take too much room."""
    titled = ((title, -1),) if title and (not path or path[0][0] != title) else ()
    names = tuple(entry for entry in titled + path if entry[0])
    while names:
        tokens = count([" > ".join(name for name, _ in names)])[0]
        if tokens * _CONTEXT_SHARE <= limits.context:
            return names, tokens
        names = names[1:]
    return (), 0


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    span = text[start:end]
    return start + len(span) - len(span.lstrip()), start + len(span.rstrip())


def _atoms(text: str, found: Sequence[Block], target: int, most: int, count: Count) -> list[_Atom]:
    """Sentences and lines of the blocks; those of more than `target` tokens are cut down, words only above `most`."""
    spans = [(start, end, number) for number, block in enumerate(found) for start, end in _natural(text, block)]
    atoms = _counted(text, spans, count)
    for border in (_LINE, _WORD):
        atoms = _cut(text, atoms, target, count, partial(_between, text, border))
    while any(atom.tokens > most and atom.end - atom.start > 1 for atom in atoms):
        atoms = _cut(text, atoms, most, count, _halves)
    return atoms


def _cut(
    text: str, atoms: list[_Atom], most: int, count: Count, cut: Callable[[_Atom], Iterable[tuple[int, int]]]
) -> list[_Atom]:
    """`atoms` with those above `most` tokens replaced by what `cut` makes of them; one call of `count`."""
    parts = {n: list(cut(atom)) for n, atom in enumerate(atoms) if atom.tokens > most}
    if not parts:
        return atoms
    fresh = iter(_counted(text, [(*span, atoms[n].block) for n, spans in parts.items() for span in spans], count))
    return [new for n, atom in enumerate(atoms) for new in ([next(fresh) for _ in parts[n]] if n in parts else [atom])]


def _counted(text: str, spans: Sequence[tuple[int, int, int]], count: Count) -> list[_Atom]:
    tokens = count([text[start:end] for start, end, _ in spans])
    return [_Atom(start, end, n, block) for (start, end, block), n in zip(spans, tokens, strict=True)]


def _natural(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """Where a block may be cut without loss: between sentences and list items, or between lines."""
    if block.kind is Kind.HEADING:
        yield block.start, block.end
    elif block.kind in (Kind.LINES, Kind.RECORD):
        yield from _at(text, block.start, block.end, _LINE)
    else:
        for start, end in _items(text, block):
            yield from _at(text, start, end, _SENTENCE)


def _items(text: str, block: Block) -> Iterator[tuple[int, int]]:
    start = block.start
    for line_start, line_end in _at(text, block.start, block.end, _LINE):
        if line_start > start and is_item(text[line_start:line_end]):
            yield start, line_start
            start = line_start
    yield start, block.end


def _at(text: str, start: int, end: int, border: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The spans of `text[start:end]` that `border` ends; the border belongs to the span before it."""
    at = start
    for found in border.finditer(text, start, end):
        if start < found.end() < end and found.end() > at:
            yield at, found.end()
            at = found.end()
    if at < end:
        yield at, end


def _between(text: str, border: re.Pattern[str], atom: _Atom) -> Iterator[tuple[int, int]]:
    return _at(text, atom.start, atom.end, border)


def _halves(atom: _Atom) -> list[tuple[int, int]]:
    if atom.end - atom.start < 2:
        return [(atom.start, atom.end)]
    middle = (atom.start + atom.end) // 2
    return [(atom.start, middle), (middle, atom.end)]


def _pack(atoms: Sequence[_Atom], limits: Limits, headings: frozenset[int]) -> Iterator[tuple[int, int]]:
    """Spans of at most `limits.tokens` tokens that hold every atom; blocks stay whole where they fit."""
    held: list[_Atom] = []
    used, bare = 0, True  # bare: nothing but headings is held
    for number, group in groupby(atoms, key=lambda atom: atom.block):
        block = list(group)
        size = _size(block)
        # A heading is not left alone at the end of a chunk: what stands under it is cut instead.
        whole = size <= limits.tokens and not bare
        for part in [block] if whole else [[atom] for atom in block]:
            added = _size(part)
            if held and used + added > limits.tokens:
                yield held[0].start, held[-1].end
                held = _tail(held, min(limits.overlap, limits.tokens - added))
                used = _size(held)
            held += part
            used += added
        bare = bare and number in headings
    if held:
        yield held[0].start, held[-1].end


def _size(atoms: Iterable[_Atom]) -> int:
    return sum(atom.tokens for atom in atoms)


def _tail(atoms: list[_Atom], tokens: int) -> list[_Atom]:
    """The last whole atoms of at most `tokens` tokens; none where that would repeat everything."""
    first, used = len(atoms), 0
    while first > 0 and used + atoms[first - 1].tokens <= tokens:
        first -= 1
        used += atoms[first].tokens
    return atoms[first:] if first else []


def _fitting(text: str, chunks: Sequence[Chunk], limits: Limits, count: Count) -> Iterator[Chunk]:
    """The chunks with their tokens counted; one that does not fit after all (tokens do not add up) is halved."""
    counts = count([part for chunk in chunks for part in (chunk.text, chunk.indexed)])
    for n, chunk in enumerate(chunks):
        own, whole = counts[2 * n], counts[2 * n + 1]
        if whole <= limits.context or (chunk.end - chunk.start < 2 and not chunk.context):
            yield Chunk(chunk.text, chunk.start, chunk.end, chunk.heading, chunk.context, own)
        else:
            yield from _fitting(text, list(_halved(text, chunk)), limits, count)


def _halved(text: str, chunk: Chunk) -> Iterator[Chunk]:
    """Two halves at the white space next to the middle, or at the middle; a single character loses its context."""
    if chunk.end - chunk.start < 2:
        yield Chunk(chunk.text, chunk.start, chunk.end, chunk.heading, "", 0)
        return
    middle = chunk.start + (chunk.end - chunk.start) // 2
    spaces = [found.end() for found in re.finditer(r"\s+", chunk.text)]
    if spaces:
        middle = chunk.start + min(spaces, key=lambda at: abs(at - len(chunk.text) // 2))
    for start, end in ((chunk.start, middle), (middle, chunk.end)):
        start, end = _trimmed(text, start, end)
        if start < end:
            yield Chunk(text[start:end], start, end, chunk.heading, chunk.context, 0)
