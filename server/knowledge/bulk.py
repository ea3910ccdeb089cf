"""Documents in JSON Lines: read as they come, taken in in batches, each refused line with its reason. Knows no HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

import msgspec

from server.knowledge.attributes import Types
from server.knowledge.document import Document
from server.knowledge.report import Applied
from server.knowledge.sources.message import Change, Message, Poison, read

_LINES, _BYTES = 512, 8 * 1024**2
"""As many lines are taken in together."""
_LONGEST_LINE = 32 * 1024**2
_MOST_TOLD = 1000
_MARK = b"\xef\xbb\xbf"


class RefusedLine(msgspec.Struct, frozen=True):
    """A line that was not taken; `line` counts from 1. `id` is None where the line does not say which document."""

    line: int
    id: str | None
    reason: str


class BulkReport(msgspec.Struct):
    """What became of the lines. `unchanged` were so already, or gone already. Of `refused` lines the first are told."""

    written: int = 0
    unchanged: int = 0
    deleted: int = 0
    refused: int = 0
    told: list[RefusedLine] = []

    def refuse(self, line: int, each: str | None, reason: str) -> None:
        self.refused += 1
        if len(self.told) < _MOST_TOLD:
            self.told.append(RefusedLine(line, each, reason))


class Pushing(Protocol):
    """What a collection does for them."""

    types: Types

    async def push(self, documents: Sequence[Document], gone: Sequence[str]) -> Applied:
        """Make these changes visible; no id comes twice. Raises HearthError."""
        ...


async def bring_lines(
    into: Pushing, pieces: AsyncIterator[bytes], heard: Callable[[int, BulkReport], None] | None = None
) -> BulkReport:
    """Take in one document a line, in their order, each as a message of a stream would have it but for its version.

    All is searchable in the end. Where it raises HearthError, the lines before are taken in, and the same lines sent
    again change nothing of them. `heard` is told after each batch how many bytes of lines are done.
    """
    report = BulkReport()
    batch: list[tuple[int, bytes]] = []
    held = done = 0
    async for number, line in _lines(pieces, report):
        batch.append((number, line))
        held += len(line) + 1
        if len(batch) >= _LINES or held >= _BYTES:
            await _bring(into, batch, report)
            done, held, batch = done + held, 0, []
            if heard is not None:
                heard(done, report)
    await _bring(into, batch, report)
    if heard is not None:
        heard(done + held, report)
    report.told.sort(key=lambda each: each.line)
    return report


async def _lines(pieces: AsyncIterator[bytes], report: BulkReport) -> AsyncIterator[tuple[int, bytes]]:
    """Lines that hold something, with their numbers; one that is too long is refused without being held."""
    rest = bytearray()
    number, too_long = 1, False
    async for piece in pieces:
        begin = 0
        while (end := piece.find(b"\n", begin)) >= 0:
            rest += piece[begin:end]
            if too_long or len(rest) > _LONGEST_LINE:
                _refuse_long(report, number)
            elif line := _whole(rest, number):
                yield number, line
            rest.clear()
            number, too_long, begin = number + 1, False, end + 1
        rest += piece[begin:]
        if len(rest) > _LONGEST_LINE:
            rest.clear()
            too_long = True
    if too_long:
        _refuse_long(report, number)
    elif line := _whole(rest, number):
        yield number, line


def _whole(line: bytearray, number: int) -> bytes:
    return bytes(line.removeprefix(_MARK) if number == 1 else line).strip()


def _refuse_long(report: BulkReport, number: int) -> None:
    report.refuse(number, None, f"it is longer than {_LONGEST_LINE // 1024**2} MiB")


async def _bring(into: Pushing, batch: Sequence[tuple[int, bytes]], report: BulkReport) -> None:
    changes = await asyncio.to_thread(_changes, batch, into.types, report)
    for group in _distinct(changes):
        lines = {change.id: change.message.offset for change in group}
        documents = [_named(change.document) for change in group if change.document is not None]
        gone = [change.id for change in group if change.document is None]
        applied = await into.push(documents, gone)
        refused_ids = {each.uri for each in applied.refused}
        report.written += len(applied.written)
        report.deleted += len(applied.deleted)
        report.unchanged += len(applied.unchanged) + len(set(gone) - set(applied.deleted) - refused_ids)
        for each in applied.refused:
            report.refuse(lines[each.uri], each.uri, each.reason)


def _changes(batch: Sequence[tuple[int, bytes]], types: Types, report: BulkReport) -> list[Change]:
    found = []
    now = time.time()
    for number, line in batch:
        message = Message("lines", number, None, line, "application/json", now)
        try:
            change = read(message, "upsert", types)
            if change.version is not None:
                raise Poison("it has a `version`, which only the messages of a stream have: lines count in their order")
            found.append(change)
        except Poison as reason:
            report.refuse(number, None, str(reason))
    return found


def _distinct(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """In their order, cut where an id comes again."""
    group: dict[str, Change] = {}
    for change in changes:
        if change.id in group:
            yield list(group.values())
            group = {}
        group[change.id] = change
    if group:
        yield list(group.values())


def _named(document: Document) -> Document:
    """As a document that is put by itself: its filename is the end of its id."""
    return replace(document, filename=PurePosixPath(document.id).name or document.id)
