"""Brings documents into a store: reads what changed, cuts, embeds and writes in batches. Knows no recipe and no search.

Whole documents are written, a batch a commit: wherever it ends, each document is as it was or as it is now, and the
next ingest goes on with what is left.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from server.knowledge.chunk import Limits, split
from server.knowledge.counting import Counter
from server.knowledge.document import Chunk, Document, document_id
from server.knowledge.embedder import Embedder
from server.knowledge.extract import Unreadable, extract, fingerprint
from server.knowledge.report import IngestReport, Progress, Skipped
from server.knowledge.sources.files import FoundFile, Scan

if TYPE_CHECKING:
    from server.knowledge.rows import Cut, Stored
    from server.knowledge.store import Store

INGESTED = "ingest"
"""The source of documents that were brought by hand; no scan deletes them."""
_FILES = "files:"
_BATCH = 256
_NO_TEXT = "there is no text in it"


def source_name(glob: str) -> str:
    return _FILES + glob


def vanished(known: Mapping[str, "Stored"], seen: Iterable[str], whole: Mapping[str, bool]) -> list[str]:
    """Ids of documents whose file is gone, or whose source is no longer declared.

    `whole` tells of each declared source whether its scan saw all of it: what an interrupted scan missed may exist.
    """
    there = set(seen)
    return [
        each
        for each, stored in known.items()
        if each not in there and stored.source.startswith(_FILES) and whole.get(stored.source, True)
    ]


@dataclass(frozen=True)
class Cutter:
    """How documents become chunks here. Its methods block and belong in a thread."""

    types: Mapping[str, str]
    limits: Limits
    counter: Counter

    def cut(self, document: Document) -> list[Chunk]:
        return split(document, self.limits, self.counter.count)

    def changed(self, file: FoundFile, source: str, stored: "Stored | None") -> tuple[Document, list[Chunk]] | None:
        """The file's document and chunks; None where the store has it as it is. Raises Unreadable."""
        if stored is not None and (stored.source, stored.hash) == (source, fingerprint(file.path)):
            return None
        document = extract(file.path, file.uri, source, self.types)
        return document, self.cut(document)


class Ingest:
    """One ingest, from its first document to its report. One task uses it."""

    def __init__(self, store: "Store", embedder: Embedder, cutter: Cutter, known: Mapping[str, "Stored"]) -> None:
        self._store = store
        self._embedder = embedder
        self._cutter = cutter
        self._known = known
        self._waiting: list[tuple[Document, list[Chunk]]] = []
        self._uris: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": [], "deleted": []}
        self._skipped: list[Skipped] = []
        self._chunks = 0
        self._tokens = 0
        self._started = time.perf_counter()

    async def files(self, found: Sequence[tuple[FoundFile, str]], progress: Progress | None) -> None:
        """Take in the files that changed, each with the name of its source."""
        for n, (file, source) in enumerate(found, start=1):
            await self._file(file, source)
            if progress is not None:
                progress(f"{n} of {len(found)} files, {self._chunks} chunks embedded")
        await self._write()

    async def documents(self, found: Iterable[Document]) -> None:
        for document in found:
            await self._add(document, await asyncio.to_thread(self._cutter.cut, document))
        await self._write()

    async def delete(self, ids: Sequence[str]) -> None:
        await self._store.delete(ids)
        self._uris["deleted"] += [self._known[each].uri for each in ids]

    def skip(self, skipped: Iterable[Skipped]) -> None:
        self._skipped += skipped

    def report(self) -> IngestReport:
        uris = {name: tuple(found) for name, found in self._uris.items()}
        seconds = time.perf_counter() - self._started
        return IngestReport(
            **uris, skipped=tuple(self._skipped), chunks=self._chunks, tokens=self._tokens, seconds=seconds
        )

    async def _file(self, file: FoundFile, source: str) -> None:
        stored = self._known.get(document_id(file.path))
        try:
            taken = await asyncio.to_thread(self._cutter.changed, file, source, stored)
        except Unreadable as error:
            self._skipped.append(Skipped(file.uri, str(error)))
            return
        if taken is None:
            self._uris["unchanged"].append(file.uri)
        else:
            await self._add(*taken)

    async def _add(self, document: Document, chunks: list[Chunk]) -> None:
        # One id twice in a commit would leave two copies of it.
        if any(document.id == waiting.id for waiting, _ in self._waiting):
            await self._write()
        self._waiting.append((document, chunks))
        if sum(max(1, len(each)) for _, each in self._waiting) >= _BATCH:
            await self._write()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        cuts = [await self._embedded(document, chunks) for document, chunks in await self._vectors(batch)]
        await self._store.replace(cuts)
        for document, chunks in batch:
            self._count(document, len(chunks))
