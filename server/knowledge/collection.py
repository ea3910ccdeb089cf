"""A collection: documents brought in from its sources and by hand, kept up to date, and searched. Knows no HTTP."""

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import HearthError, InvalidValue, KnowledgeUnavailable, ServiceError
from server.knowledge.attributes import Types, check
from server.knowledge.confidence import Asking, Confidence, SelfTest
from server.knowledge.counting import Counter, counter, estimate
from server.knowledge.document import AttributeValue, Document, Hit, Unreadable, digest, encodable
from server.knowledge.embedder import Embedder
from server.knowledge.filter import Filter, to_sql
from server.knowledge.ingest import Cutter, Ingest
from server.knowledge.licences import Licences
from server.knowledge.maintenance import Maintenance
from server.knowledge.report import CollectionStatus, Found, IngestReport, Progress, Skipped, Upkeep
from server.knowledge.search import Embedded, Legs, Mode, Query, hit, ranked, widened
from server.knowledge.splitter import Limits, pieces
from server.knowledge.stored import Held, Listed
from server.knowledge.sync import bring_folder, bring_sources
from server.models.engine import Card

if TYPE_CHECKING:
    from server.knowledge.reading import Reading
    from server.knowledge.store import Store

log = logging.getLogger(__name__)

_PROBE = "The quick brown fox jumps over the lazy dog."
_LAYOUT = "2"
"""Raise it when documents are extracted, cut or stored in another way: tables made before are then made anew."""
_QUERY_PIECES = 8
_QUERY_CHARACTERS = 100_000
_STORE_FAULTS = (OSError, ValueError, RuntimeError)
"""What LanceDB raises for every fault of a table."""


class Collection:
    """One collection under `folder`. An async context manager; entering asks the embedder for one vector.

    Searches may run at any time between entering and leaving, and see what other processes wrote; ingests of one
    Collection take turns. A fault of the store is a KnowledgeUnavailable, one of the embedder its own HearthError.
    """

    def __init__(
        self, name: str, spec: CollectionSpec, embedder: Embedder, folder: Path, *, undeclared: bool = False
    ) -> None:
        """`undeclared` lets every document bring attributes of its own, instead of those `spec` declares."""
        self.name = name
        self.spec = spec
        self.types: Types = None if undeclared else spec.attributes
        self._embedder = embedder
        self._folder = folder
        self._store: Store | None = None
        self._maintenance: Maintenance | None = None
        self._counter = Counter(estimate, 0)
        self._state = "opening"
        self._error: str | None = None
        self._last: IngestReport | None = None
        self._turn = asyncio.Lock()
        self._self_test = SelfTest(folder)
        self._licences = Licences.of(spec)

    async def __aenter__(self) -> Self:
        with self._faults("could not be opened"):
            probe = (await self._embedder.embed([_PROBE])).vectors[0]
            card = self._embedder.card
            if card is None:
                raise ServiceError(f"model {self._embedder.name} embeds without saying what it is")
            self._counter = await asyncio.to_thread(counter, card)
            self._store = await self._open_store(_unit(probe), card)
            self._maintenance = Maintenance(self._store, self.name)
            self._maintenance.start()
            await self._self_test.open(Asking(self._store, self._store.table, self._embed, self._counter.room))
        self._state = "ready"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._self_test.close()
        if self._store is not None:
            if self._maintenance is not None:
                await self._maintenance.close()
            await self._store.close()
            self._store = None

    async def search(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filters: Filter | None = None,
        weights: tuple[float, float] | None = None,
        as_of: int | None = None,
    ) -> Found:
        """The `k` nearest chunks. `weights` are of the vector and the text ranking in a hybrid search.

        Without weights, each leg counts as far as it finds chunks of this collection. `as_of` is an earlier version to
        search. A query longer than the model reads is embedded in pieces. Raises InvalidValue.
        """
        asked = Query(
            text=encodable(query).strip(),
            k=self.spec.search.k if k is None else k,
            mode=self.spec.search.mode if mode is None else mode,
            where=None if filters is None else self.condition(filters),
            weights=self._self_test.known.weights if weights is None else weights,
        )
        try:
            async with self._at(as_of) as store:
                legs = Legs(store, asked, self._embed_query)
                _, version = await asyncio.gather(legs.run(), store.version())
        except _STORE_FAULTS as error:
            raise KnowledgeUnavailable(f"Collection {self.name} could not be searched: {error}") from error
        if as_of is None:
            self._self_test.notice(version)
        ranking = ranked(legs, asked)
        return Found(
            hits=[hit(self.name, *found, self.types) for found in ranking.rows],
            tokens=legs.embedded.tokens if legs.embedded else 0,
            timings_ms=legs.timings_ms,
            version=version,
            weights=asked.weights,
            scale=ranking.scale,
            legs=ranking.legs,
        )

    async def widened(self, hits: Sequence[Hit], reach: int, as_of: int | None = None) -> list[Hit]:
        """Each hit with the `reach` chunks before and after it joined to its text; one that is gone stays as it is."""
        if not hits:
            return []
        with self._read():
            async with self._at(as_of) as store:
                around = await store.around([each.id for each in hits], reach)
        whole = [widened(each, around.get(each.id, [])) for each in hits]
        counts = await asyncio.to_thread(self._counter.count, [each.text for each in whole])
        return [replace(each, token_count=count) for each, count in zip(whole, counts, strict=True)]

    async def learn(self) -> None:
        """Find out how far each leg can be trusted, where that is not known of what is here now; seconds at most."""
        await self._self_test.renew()

    @property
    def confidence(self) -> Confidence:
        """How far each leg finds chunks of this collection."""
        return self._self_test.known

    @asynccontextmanager
    async def _at(self, version: int | None) -> AsyncIterator["Reading"]:
        store = self._opened_store()
        if version is None:
            yield store
            return
        async with store.at(version) as earlier:
            yield earlier

    async def upsert(self, documents: Sequence[Document], chunk: ChunkSpec | None = None) -> IngestReport:
        """Put documents in, each in place of the one with its id.

        Raises InvalidValue where an attribute is wrong or a licence is not allowed.

        `chunk` says how these are cut, instead of the collection's own.
        """
        for document in documents:
            self.check(document.attributes)
            if reason := self._licences.refusal(document.licence):
                raise InvalidValue(f"The document is refused: {reason}.", param="licence")
        async with self._ingest(chunk, ids=[document.id for document in documents]) as ingest:
            for document in documents:
                await ingest.add(document)
            await ingest.finish()
        return ingest.report

    async def delete(self, ids: Sequence[str]) -> IngestReport:
        """Take documents out; ids that are not here are no fault."""
        async with self._ingest(ids=ids) as ingest:
            await ingest.delete([each for each in ids if each in ingest.known])
        return ingest.report

    async def apply(self, source: str, documents: Sequence[Document], gone: Sequence[str]) -> list[Skipped]:
        """Make these changes of one declared source visible; no id comes twice.

        Answers with what is refused, by id: a document that another declared source has, or whose licence is not
        allowed. One that is here as it is, is not embedded again.
        """
        documents = [self._licences.applied(document) for document in documents]
        refused = {each.id: reason for each in documents if (reason := self._licences.refusal(each.licence))}
        ids = [*(document.id for document in documents), *gone]
        async with self._ingest(ids=ids) as ingest:
            known = ingest.known
            foreign = {each for each, held in known.items() if held.source != source and held.is_declared}
            for document in documents:
                held = known.get(document.id)
                as_it_is = held is not None and (held.source, held.hash) == (source, document.hash)
                if document.id not in foreign and (document.id in refused or not as_it_is):
                    await ingest.add(document)
            await ingest.finish()
            await ingest.delete([each for each in gone if each in known and each not in foreign])
        refused |= {each: f"{known[each].source} has a document of this id" for each in foreign}
        return [Skipped(each, refused[each]) for each in ids if each in refused]

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Give one document these attributes, without embedding it again. Raises InvalidValue."""
        self.check(attributes)
        async with self._ingest(ids=()):
            await self._opened_store().set_attributes(each, attributes)

    def condition(self, filters: Filter) -> str:
        """`filters` in the store's SQL. Raises InvalidValue."""
        return to_sql(filters, self.types)

    def check(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Raises InvalidValue where an attribute cannot be kept here."""
        try:
            check(attributes, self.types)
        except Unreadable as error:
            raise InvalidValue(f"{str(error)[:1].upper()}{str(error)[1:]}.", param="attributes") from error

    async def documents(self) -> list[Listed]:
        """Every document, in the order of their ids."""
        with self._read():
            return await self._opened_store().listed()

    async def document(self, each: str) -> Held | None:
        """One document put together from its chunks; None where there is none of this id."""
        with self._read():
            return await self._opened_store().held(each)

    async def vectors(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """The vectors of these chunks; one that is gone has none."""
        with self._read():
            return await self._opened_store().vectors(ids)

    async def bytes(self) -> int:
        """What its rows take on disk."""
        with self._read():
            return await self._opened_store().bytes()

    async def sync(self, progress: Progress | None = None, *, changed: Set[Path] | None = None) -> IngestReport:
        """Bring the declared sources up to date: what changed is taken in, what is gone is deleted.

        What `ingest` and `upsert` brought stays. `changed` are the only paths whose files, or files below, are read
        again; None stands for all. The first sync after the recipe or the model changed makes all anew.
        """
        async with self._ingest() as ingest:
            await bring_sources(ingest, self._opened_store(), self.spec.sources, self.types, progress, changed)
            await ingest.refuse_known()
        await self.learn()
        return ingest.report

    async def ingest(self, path: Path, progress: Progress | None = None) -> IngestReport:
        """Take in a file, or the files of a folder; of that folder, what was brought before and is gone is deleted."""
        async with self._ingest() as ingest:
            await bring_folder(ingest, path, progress)
        await self.learn()
        return ingest.report

    async def status(self) -> CollectionStatus:
        if self._store is None:
            return CollectionStatus(self._state, 0, 0, 0, self._error, self._last)
        with self._read():
            (documents, chunks), version = await asyncio.gather(self._store.count(), self._store.version())
        return CollectionStatus(
            self._state, documents, chunks, version, self._error or self.upkeep.error, self._last, self.upkeep
        )

    @property
    def upkeep(self) -> Upkeep:
        """How the table was when maintenance last looked. Costs nothing."""
        if self._maintenance is None or self._store is None:
            return Upkeep()
        found = self._maintenance.measure
        return Upkeep(
            fragments=found.fragments,
            unindexed=found.unindexed,
            versions=found.versions,
            bytes=found.disk,
            hot=self._store.hot_rows,
            failures=self._maintenance.failures,
            error=self._maintenance.error,
        )

    @asynccontextmanager
    async def _ingest(
        self, chunk: ChunkSpec | None = None, *, ids: Sequence[str] | None = None
    ) -> AsyncIterator[Ingest]:
        """One ingest at a time; its report, its fault and the state are kept for `status`.

        `ids` are the documents it may touch; None stands for all.
        """
        async with self._turn:
            store = self._opened_store()
            self._state = "syncing"
            try:
                with self._faults("could not be brought up to date"):
                    self._error = None
                    known = await store.documents(ids)
                    cutter = self._cutter(chunk or self.spec.chunk)
                    ingest = Ingest(store, self._embedder, cutter, known, self._upkeep)
                    yield ingest
                self._last = ingest.report
            finally:
                if self._state == "syncing":
                    self._state = "ready"

    async def _upkeep(self) -> None:
        """After each commit. Words can be searched from the first on; the rest happens behind it."""
        await self._opened_store().index_words()
        if self._maintenance is not None:
            self._maintenance.wake()

    @contextmanager
    def _read(self) -> Iterator[None]:
        try:
            yield
        except _STORE_FAULTS as error:
            raise KnowledgeUnavailable(f"Collection {self.name} could not be read: {error}") from error

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except HearthError as error:
            self._state, self._error = "failed", error.message
            raise
        except _STORE_FAULTS as error:
            self._state, self._error = "failed", str(error)
            raise KnowledgeUnavailable(f"Collection {self.name} {what}: {error}") from error

    def _opened_store(self) -> "Store":
        if self._store is None:
            raise KnowledgeUnavailable(f"Collection {self.name} is not open.", retry_after=2)
        return self._store

    def _cutter(self, chunk: ChunkSpec) -> Cutter:
        limits = Limits(chunk.tokens, chunk.overlap, self._counter.room)
        return Cutter(self.types, limits, self._counter, self._licences)

    async def _open_store(self, probe: NDArray[np.float32], card: Card) -> "Store":
        opening = await asyncio.to_thread(_store_room)
        chunk, attributes = self.spec.chunk, "undeclared" if self.types is None else sorted(self.types.items())
        made_with = (_LAYOUT, str(chunk.tokens), str(chunk.overlap), str(card.context), repr(attributes))
        shape = opening.Shape(self.types, digest(*made_with), probe)
        store: Store = await opening.Store.open(self._folder, shape, hot=self.spec.hot)
        if store.older:
            log.info("collection %s: the recipe or its model changed, the next sync makes the table anew", self.name)
        return store

    async def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return (await self._embedder.embed(texts)).vectors

    async def _embed_query(self, text: str) -> Embedded:
        room = self._counter.room
        parts = [text]
        if len(text.encode()) > room:  # no tokenizer makes more tokens than bytes
            parts = await asyncio.to_thread(_readable, text, self._counter)
        found = await self._embedder.embed(parts)
        return Embedded(_unit(found.vectors.mean(axis=0)), found.tokens)


def _store_room() -> ModuleType:
    """Imports LanceDB, which takes a second of processor time: only where a collection opens, and in a thread."""
    return importlib.import_module("server.knowledge.store")


def _readable(text: str, counter: Counter) -> list[str]:
    """A query that is longer than the model reads, in pieces; of a very long one its beginning and its end."""
    if len(text) > _QUERY_CHARACTERS:
        text = f"{text[: _QUERY_CHARACTERS // 2]}\n{text[-_QUERY_CHARACTERS // 2 :]}"
    # A piece's tokens are summed over its sentences, which may be a few short of the whole.
    parts = pieces(text, max(1, counter.room * 7 // 8), counter.count)
    half = _QUERY_PIECES // 2
    return parts if len(parts) <= _QUERY_PIECES else parts[:half] + parts[-half:]


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    size = float(np.linalg.norm(vector))
    return vector / size if size else vector
