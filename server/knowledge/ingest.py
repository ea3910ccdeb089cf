"""Brings documents into a store: reads what changed, cuts, embeds and writes in batches. Knows no recipe and no search.

Whole documents are written, a batch a commit: wherever it ends, each document is as it was or as it is now, and the
next ingest goes on with what is left.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from server.knowledge.attributes import Types, fitting
from server.knowledge.counting import Counter
from server.knowledge.document import Chunk, Document, Unreadable, document_id
from server.knowledge.embedder import Embedder
from server.knowledge.extract import extract, fingerprint
from server.knowledge.licences import Licences
from server.knowledge.record import Speed
from server.knowledge.report import Advance, IngestReport, Progress, Skipped
from server.knowledge.sources.files import FoundFile
from server.knowledge.splitter import Limits, split, whole
from server.knowledge.stored import Cut, Stored

if TYPE_CHECKING:
    from server.knowledge.store import Store

Upkeep = Callable[[], Awaitable[None]]

_BATCH = 256
"""Chunks that are embedded and written together."""
_NO_TEXT = "there is no text in it"


class NotLicensed(Unreadable):
    """The collection may not hold the document; what an earlier version of it brought goes too."""


@dataclass(frozen=True)
class Cutter:
    """How documents become chunks here. Its methods block and belong in a thread."""

    types: Types
    limits: Limits
    counter: Counter
    licences: Licences

    def cut(self, document: Document) -> list[Chunk]:
        if document.vector is not None:
            return whole(document, self.counter.count)
        return split(document, self.limits, self.counter.count)

    def cut_all(self, documents: Sequence[Document]) -> list[list[Chunk]]:
        return [self.cut(document) for document in documents]

    def changed(self, file: FoundFile, source: str, stored: Stored | None) -> tuple[Document, list[Chunk]] | None:
        """The file's document and chunks; None where the store has it as it is. Raises Unreadable."""
        if stored is not None and self.licences.is_same(stored, source, fingerprint(file.path)):
            self._check(stored.licence)
            return None
        document = self.licences.applied(extract(file.path, file.uri, source, self.types))
        self._check(document.licence)
        return document, self.cut(document)

    def _check(self, licence: str | None) -> None:
        reason = self.licences.refusal(licence)
        if reason is not None:
            raise NotLicensed(reason)


@dataclass(frozen=True)
class Ahead:
    """What documents become, by id, made before their turn to be written: while others are written."""

    embedder: Embedder
    limits: Limits
    chunks: Mapping[str, list[Chunk]]
    vectors: Mapping[str, NDArray[np.float32]]
    """float32 [chunks, dimension]; of documents that brought one of their own there is none."""
    speed: Speed

    @classmethod
    async def of(cls, documents: Sequence[Document], cutter: Cutter, embedder: Embedder) -> "Ahead":
        """Raises what the model raises."""
        cut = await asyncio.to_thread(cutter.cut_all, documents)
        chunks = {document.id: part for document, part in zip(documents, cut, strict=True)}
        own = [document.id for document in documents if document.vector is None and chunks[document.id]]
        texts = [chunk.indexed for each in own for chunk in chunks[each]]
        found, speed = await _embedded(embedder, texts)
        borders = np.cumsum([len(chunks[each]) for each in own])[:-1]
        vectors = dict(zip(own, np.split(found, borders), strict=True)) if own else {}
        return cls(embedder, cutter.limits, chunks, vectors, speed)

    def fits(self, embedder: Embedder, cutter: Cutter, dimension: int) -> bool:
        """Whether these would be made alike now, for a table of this dimension."""
        sizes = {vectors.shape[1] for vectors in self.vectors.values()}
        return self.embedder is embedder and self.limits == cutter.limits and sizes <= {dimension}


class Ingest:
    """One ingest, from its first document to its report. One task uses it; it calls `upkeep` after each commit."""

    def __init__(
        self, store: "Store", embedder: Embedder, cutter: Cutter, known: Mapping[str, Stored], upkeep: Upkeep
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._cutter = cutter
        self._upkeep = upkeep
        self.known = known
        self.written: set[str] = set()
        self.touched: set[str] = set()
        """Written or deleted since somebody last emptied it."""
        self._deleted: set[str] = set()
        self._waiting: list[tuple[Document, list[Chunk]]] = []
        self._uris: dict[str, list[str]] = {"added": [], "updated": [], "unchanged": [], "deleted": []}
        self._bytes: dict[str, int] = {}
        self._skipped: list[Skipped] = []
        self._chunks = 0
        self._tokens = 0
        self._embedded = 0
        self._embedding = 0.0
        self._ahead: dict[str, NDArray[np.float32]] = {}
        self._started = time.perf_counter()

    async def files(self, found: Sequence[tuple[FoundFile, str]], progress: Progress | None) -> None:
        """Take in the files that changed, each with the name of its source."""
        sizes = [0] * len(found) if progress is None else await asyncio.to_thread(_sizes, found)
        done = 0
        for n, (file, source) in enumerate(found, start=1):
            await self._file(file, source)
            done += sizes[n - 1]
            if progress is not None:
                progress(Advance(n, len(found), done, sum(sizes), self._chunks))
        await self.finish()

    async def add(self, documents: Sequence[Document], ahead: Ahead | None = None) -> None:
        """Take in those whose licence allows it; `finish` after the last.

        What was made `ahead` is not made again, where it was made as it would be now.
        """
        allowed = []
        for document in map(self._cutter.licences.applied, documents):
            if reason := self._cutter.licences.refusal(document.licence):
                await self._refuse(document.id, document.uri, reason)
            else:
                allowed.append(document)
        made: dict[str, list[Chunk]] = {}
        if ahead is not None and ahead.fits(self._embedder, self._cutter, self._store.dimension):
            made |= ahead.chunks
            self._ahead |= ahead.vectors
            self._spend(ahead.speed)
        # Together: handing a short text to a thread takes longer than cutting it.
        rest = [document for document in allowed if document.id not in made]
        cut = await asyncio.to_thread(self._cutter.cut_all, rest) if rest else []
        made |= {document.id: chunks for document, chunks in zip(rest, cut, strict=True)}
        for document in allowed:
            await self._add(document, made[document.id])

    async def finish(self) -> None:
        """Write what still waits for its batch to fill."""
        await self._write()

    async def refuse_known(self) -> None:
        """Take out what was brought before a licence it has, or lacks, was refused."""
        for each, stored in self.known.items():
            reason = self._cutter.licences.refusal(stored.licence)
            if reason is not None and each not in self.written and each not in self._deleted:
                await self._refuse(each, stored.uri, reason)

    async def delete(self, ids: Sequence[str]) -> None:
        await self._store.delete(ids)
        self._deleted |= set(ids)
        self.touched |= set(ids)
        self._uris["deleted"] += [self.known[each].uri for each in ids]
        await self._upkeep()

    def skip(self, skipped: Iterable[Skipped]) -> None:
        self._skipped += skipped

    @property
    def untouched(self) -> set[str]:
        """The uris of known documents of which nothing was read, written or deleted."""
        touched = set().union(*self._uris.values())
        return {stored.uri for stored in self.known.values()} - touched

    @cached_property
    def report(self) -> IngestReport:
        """What was done; read it when all is."""
        return IngestReport(
            added=tuple(self._uris["added"]),
            updated=tuple(self._uris["updated"]),
            unchanged=tuple(self._uris["unchanged"]),
            deleted=tuple(self._uris["deleted"]),
            skipped=tuple(self._skipped),
            chunks=self._chunks,
            tokens=self._tokens,
            seconds=time.perf_counter() - self._started,
            bytes=self._bytes,
        )

    @property
    def speed(self) -> Speed:
        """What was embedded so far."""
        return Speed(self._embedded, self._tokens, self._embedding)

    async def _file(self, file: FoundFile, source: str) -> None:
        stored = self.known.get(document_id(file.path))
        try:
            taken = await asyncio.to_thread(self._cutter.changed, file, source, stored)
        except NotLicensed as error:
            await self._refuse(document_id(file.path), file.uri, str(error))
            return
        except Unreadable as error:
            self._skipped.append(Skipped(file.uri, str(error)))
            return
        if taken is None:
            self._uris["unchanged"].append(file.uri)
        else:
            await self._add(*taken)

    async def _refuse(self, each: str, uri: str, reason: str) -> None:
        self._skipped.append(Skipped(uri, reason))
        if each in self.known:
            await self.delete([each])

    async def _add(self, document: Document, chunks: list[Chunk]) -> None:
        # One id twice in a commit would leave two copies of it.
        if any(document.id == waiting.id for waiting, _ in self._waiting):
            await self._write()
        self._waiting.append((document, chunks))
        if sum(max(1, len(each)) for _, each in self._waiting) >= _BATCH:
            await self._write()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, []
        if not batch:
            return
        parts = await self._of_each(batch)
        made = [Cut(self._kept(document), chunks, part) for (document, chunks), part in zip(batch, parts, strict=True)]
        cuts = [cut for cut in made if not self._is_flawed(cut)]
        await self._store.replace([cut for cut in cuts if cut.chunks or cut.document.id in self.known])
        for cut in cuts:
            self._note(cut)
        await self._upkeep()

    def _kept(self, document: Document) -> Document:
        """With what the table has columns for: those of one that serves until another is built may be other ones."""
        if self._store.types == self._cutter.types:
            return document
        return replace(document, attributes=fitting(document.attributes, self._store.types))

    def _is_flawed(self, cut: Cut) -> bool:
        """Whether its vectors cannot be kept, which is noted: what the store has of the document stays."""
        flaw = cut.flaw(self._store.dimension)
        if flaw is not None:
            self._skipped.append(Skipped(cut.document.uri, flaw))
        return flaw is not None

    async def _of_each(self, batch: Sequence[tuple[Document, list[Chunk]]]) -> list[NDArray[np.float32]]:
        """Of each document the vectors of its chunks: the one it came with, else the model's."""
        ahead = {document.id: self._ahead.pop(document.id) for document, _ in batch if document.id in self._ahead}
        own = [pair for pair in batch if pair[0].vector is None and pair[0].id not in ahead]
        vectors, at = await self._vectors([chunk.indexed for _, chunks in own for chunk in chunks]), 0
        parts = []
        for document, chunks in batch:
            if document.vector is not None:
                parts.append(document.vector[None][: len(chunks)])
            elif document.id in ahead:
                parts.append(ahead[document.id])
            else:
                parts.append(vectors[at : at + len(chunks)])
                at += len(chunks)
        return parts

    async def _vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if not texts:
            return np.empty((0, self._store.dimension), np.float32)
        found, spent = await _embedded(self._embedder, texts)
        self._spend(spent)
        if found.shape[1] != self._store.dimension:
            wanted = self._store.dimension
            raise ValueError(f"model {self._embedder.name} gave vectors of {found.shape[1]} numbers, here are {wanted}")
        return found

    def _spend(self, speed: Speed) -> None:
        self._embedded += speed.chunks
        self._tokens += speed.tokens
        self._embedding += speed.seconds

    def _note(self, cut: Cut) -> None:
        uri, was_known = cut.document.uri, cut.document.id in self.known
        self._chunks += len(cut.chunks)
        self.written.add(cut.document.id)
        self.touched.add(cut.document.id)
        if not cut.chunks:
            self._skipped.append(Skipped(uri, _NO_TEXT))
            if was_known:
                self._uris["deleted"].append(uri)
        else:
            self._uris["updated" if was_known else "added"].append(uri)
            self._bytes[uri] = cut.bytes


async def _embedded(embedder: Embedder, texts: Sequence[str]) -> tuple[NDArray[np.float32], Speed]:
    """Vectors float32 [texts, dimension]; none, of no size, where there are no texts."""
    started, tokens = time.perf_counter(), 0
    parts = []
    for at in range(0, len(texts), _BATCH):
        found = await embedder.embed(texts[at : at + _BATCH], "document")
        parts.append(found.vectors)
        tokens += found.tokens
    vectors = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return vectors, Speed(len(texts), tokens, time.perf_counter() - started)


def _sizes(found: Sequence[tuple[FoundFile, str]]) -> list[int]:
    """In bytes, 0 where a file is gone by now."""
    sizes = []
    for file, _ in found:
        try:
            sizes.append(file.path.stat().st_size)
        except OSError:
            sizes.append(0)
    return sizes
