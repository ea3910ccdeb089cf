"""A collection: documents brought in from its sources and by hand, kept up to date, and searched. Knows no HTTP."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import InvalidValue, KnowledgeUnavailable, ServiceError
from server.knowledge.attributes import Types
from server.knowledge.confidence import Confidence
from server.knowledge.counting import Counter
from server.knowledge.document import AttributeValue, Document, Hit, encodable
from server.knowledge.embedder import Embedder
from server.knowledge.filter import Filter, to_sql
from server.knowledge.ingest import Ahead
from server.knowledge.optimizer import Optimizer
from server.knowledge.query_cache import QueryCache, key_of
from server.knowledge.rebuild import CutAs
from server.knowledge.record import MadeWith
from server.knowledge.refused import Refused
from server.knowledge.report import (
    Applied,
    CollectionStatus,
    Found,
    IndexState,
    IngestReport,
    Progress,
    Upkeep,
)
from server.knowledge.search import Embedded, Mode, Query, hit, widened
from server.knowledge.serving import STORE_FAULTS, Serving
from server.knowledge.splitter import pieces
from server.knowledge.stored import Held, Listed
from server.knowledge.tier import Tier, TierName, checked, looked_at
from server.knowledge.writing import Writing

if TYPE_CHECKING:
    from server.knowledge.reading import Reading
    from server.knowledge.store import Store

log = logging.getLogger(__name__)

_PROBE = "The quick brown fox jumps over the lazy dog."
_QUERY_PIECES = 8
_QUERY_CHARACTERS = 100_000


class Collection:
    """One collection under `folder`. An async context manager; entering asks the embedder for one vector.

    Searches may run at any time between entering and leaving, and see what other processes wrote; ingests of one
    Collection take turns. A fault of the store is a KnowledgeUnavailable, one of the embedder its own HearthError.
    """

    def __init__(
        self,
        name: str,
        spec: CollectionSpec,
        embedder: Embedder,
        folder: Path,
        *,
        undeclared: bool = False,
        refused: Refused | None = None,
        others: Sequence[Embedder] = (),
        tier: Tier | None = None,
        cache: QueryCache | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        """`undeclared` lets every document bring attributes of its own, instead of those `spec` declares.

        `refused` is told of the files that ingests leave out. `others` are further models that may be loaded: one of
        them may have embedded what is here, until the index is built anew. `tier` knows its cold documents, `cache`
        keeps what searches find, and `optimizer` has a process for the upkeep that takes long.
        """
        self.name = name
        self.refused = refused
        self.spec = spec
        self.types: Types = None if undeclared else spec.attributes
        self.tier = tier
        self._cache = cache
        self._embedder = embedder
        self._serving = Serving(name, embedder, others, folder, optimizer)
        if tier is not None:
            tier.when_moved = self._serving.wake
        self._writing = Writing(name, spec, self.types, self._serving, embedder, refused, tier)

    async def __aenter__(self) -> Self:
        with self._writing.faults("could not be opened"):
            probe = (await self._embedder.embed([_PROBE], "document")).vectors[0]
            card = self._embedder.card
            if card is None:
                raise ServiceError(f"model {self._embedder.name} embeds without saying what it is")
            made = MadeWith.of(
                self.spec.chunk,
                self.types,
                model=self.spec.embed,
                identity=card.identity,
                dimension=len(probe),
                context=card.context,
            )
            spec = self.spec
            await self._serving.open(made, self.types, _unit(probe), hot=spec.hot, language=spec.language)
        self._writing.state = "ready"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._writing.close()
        try:
            if self.tier is not None:
                await self.tier.close()
        finally:
            await self._serving.close()

    async def search(
        self,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filters: Filter | None = None,
        weights: tuple[float, float] | None = None,
        as_of: int | None = None,
        tiers: Sequence[TierName] | None = None,
    ) -> Found:
        """The `k` nearest chunks. `weights` are of the vector and the text ranking in a hybrid search.

        Without weights, each leg counts as far as it finds chunks of this collection. `as_of` is an earlier version to
        search. A query longer than the model reads is embedded in pieces. `tiers` are those that are searched, of which
        hot and warm hold the same rows; without them the cold one is searched where the local answer is weak. Raises
        InvalidValue.
        """
        checked(tiers, self.tier, as_of)
        async with self._reading("searched") as now, self._at(now, as_of) as store:
            wanted, note = self.spec.search.mode if mode is None else mode, None
            if wanted != "text" and (note := self._serving.note) is not None:
                wanted = "text"
            asked = Query(
                text=encodable(query).strip(),
                k=self.spec.search.k if k is None else k,
                mode=wanted,
                where=None if filters is None else self.condition(filters),
                weights=self._serving.confidence.weights if weights is None else weights,
            )
            key = None
            if self._cache is not None and as_of is None:
                key = await self._key(now, asked, tiers)
                if (kept := await self._cache.get(key)) is not None:
                    return kept
            if self.tier is None or as_of is not None:
                looking = looked_at(store, asked, self._embed_query)
            else:
                looking = self.tier.search(now, asked, self._embed_query, tiers)
            looked, version = await asyncio.gather(looking, store.version())
        if as_of is None:
            self._serving.notice(version)
        legs, ranking = looked.legs, looked.ranking
        found = Found(
            hits=[hit(self.name, *each, now.types, looked.cold) for each in ranking.rows],
            tokens=legs.embedded.tokens if legs.embedded else 0,
            timings_ms=legs.timings_ms,
            version=version,
            weights=asked.weights,
            scale=ranking.scale,
            places=ranking.places,
            mode=wanted,
            note=note,
            tiers=looked.tiers,
            why=looked.why,
        )
        if key is not None and self._cache is not None:
            await self._cache.put(key, found)
        return found

    async def _key(self, store: "Store", asked: Query, tiers: Sequence[TierName] | None) -> str:
        """Under which an answer is kept: all that decides it, the rows as they are now among that."""
        moves = 0 if self.tier is None else (await self.tier.catalogue.view()).moves
        asks = (asked.text, asked.k, asked.mode, asked.where, asked.weights, tiers and sorted(set(tiers)))
        card = self._embedder.card
        before = [] if card is None else [*card.prompts.values()]
        return key_of(self.name, store.table, *await store.stamp(), moves, *asks, *before)

    def read(self, hits: Sequence[Hit]) -> None:
        """Hear which chunks somebody was shown: documents that nobody reads may move to cold storage."""
        if self.tier is not None:
            self.tier.read(each.document_id for each in hits)

    async def widened(self, hits: Sequence[Hit], reach: int, as_of: int | None = None) -> list[Hit]:
        """Each hit with the `reach` chunks before and after it joined to its text; one that is gone stays as it is."""
        if not hits:
            return []
        async with self._reading("read") as now, self._at(now, as_of) as store:
            around = await store.around([each.id for each in hits], reach)
            cold = [each.id for each in hits if each.tier == "cold" and each.id not in around]
            if self.tier is not None and cold:
                around |= await self.tier.around(now, cold, reach)
        whole = [widened(each, around.get(each.id, [])) for each in hits]
        count = (await self._serving.counter(self._embedder)).count
        counts = await asyncio.to_thread(count, [each.text for each in whole])
        return [replace(each, token_count=count) for each, count in zip(whole, counts, strict=True)]

    async def learn(self) -> None:
        """Find out how far each leg can be trusted, where that is not known of what is here now; seconds at most."""
        await self._serving.learn()

    @property
    def confidence(self) -> Confidence:
        """How far each leg finds chunks of this collection."""
        return self._serving.confidence

    @asynccontextmanager
    async def _reading(self, what: str) -> "AsyncIterator[Store]":
        """The table that serves, open until the block ends."""
        try:
            async with self._serving.reading() as store:
                yield store
        except STORE_FAULTS as error:
            raise KnowledgeUnavailable(f"Collection {self.name} could not be {what}: {error}") from error

    @asynccontextmanager
    async def _at(self, store: "Store", version: int | None) -> "AsyncIterator[Reading]":
        if version is None:
            yield store
            return
        async with store.at(version) as earlier:
            yield earlier

    async def upsert(self, documents: Sequence[Document], chunk: ChunkSpec | None = None) -> IngestReport:
        """Put documents in, each in place of the one with its id; those of callers that wait together go together.

        `chunk` says how these are cut, instead of the collection's own. In the report, `chunks`, `tokens` and `seconds`
        are of all that went together. Raises InvalidValue where an attribute is wrong or a licence is not allowed, and
        Conflict where a source of the recipe has one of them, which leaves that one as it is.
        """
        return await self._writing.upsert(documents, chunk)

    async def delete(self, ids: Sequence[str]) -> IngestReport:
        """Take documents out; ids that are not here are no fault."""
        return await self._writing.delete(ids)

    async def ahead(self, source: str, documents: Sequence[Document]) -> Ahead | None:
        """What `apply` will need of these documents, made while others are applied; no id comes twice.

        None where nothing can be made now, for whatever reason: `apply` finds out once more.
        """
        return await self._writing.ahead(source, documents)

    async def apply(
        self, source: str, documents: Sequence[Document], gone: Sequence[str], ahead: Ahead | None = None
    ) -> Applied:
        """Make these changes of one source visible; no id comes twice, and the id of a document is its uri.

        Refused is a document that another declared source has, or whose licence is not allowed. One that is here as it
        is, is not embedded again.
        """
        return await self._writing.apply(source, documents, gone, ahead)

    async def push(self, documents: Sequence[Document], gone: Sequence[str]) -> Applied:
        """As `apply`, for what clients send: a document under a licence that is not allowed leaves all as it is."""
        return await self._writing.push(documents, gone)

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Give one document these attributes, without embedding it again. Raises InvalidValue."""
        await self._writing.set_attributes(each, attributes)

    def check(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Raises InvalidValue where an attribute cannot be kept here."""
        self._writing.check(attributes)

    async def sync(self, progress: Progress | None = None, *, changed: Set[Path] | None = None) -> IngestReport:
        """Bring the declared sources up to date: what changed is taken in, what is gone is deleted.

        What `ingest` and `upsert` brought stays. `changed` are the only paths whose files, or files below, are read
        again; None stands for all.
        """
        return await self._writing.sync(progress, changed=changed)

    async def ingest(self, path: Path, progress: Progress | None = None) -> IngestReport:
        """Take in a file, or the files of a folder; of that folder, what was brought before and is gone is deleted."""
        return await self._writing.ingest(path, progress)

    async def indices(self) -> list[IndexState]:
        """The indices of its table, as they are now."""
        async with self._reading("read") as store:
            return await store.indices()

    async def look(self) -> Upkeep:
        """As `upkeep`, by a look at the table now."""
        async with self._reading("read") as store:
            found = self._serving.upkeep(await store.measure())
        if self.tier is not None:
            await self.tier.catalogue.view()
        return self._tiered(found)

    def condition(self, filters: Filter) -> str:
        """`filters` in the store's SQL. Raises InvalidValue."""
        store = self._serving.store
        try:
            return to_sql(filters, self.types if store is None else store.types)
        except InvalidValue as error:
            if store is None or store.types == self.types:
                raise
            to_sql(filters, self.types)  # where it is wrong in any case
            message = f"Until the new index is built, this filter cannot be answered: {error.message}"
            raise KnowledgeUnavailable(message, retry_after=30) from error

    async def documents(self) -> list[Listed]:
        """Every document, in the order of their ids."""
        async with self._reading("read") as store:
            if self.tier is None:
                return await store.listed()
            # On both sides of the table: a document that moves meanwhile is then in one of them.
            found = [*await self.tier.listed(), *await store.listed()]
            listed = {each.id: each for each in [*await self.tier.listed(), *found]}
        return sorted(listed.values(), key=lambda each: each.id)

    async def document(self, each: str) -> Held | None:
        """One document put together from its chunks; None where there is none of this id."""
        async with self._reading("read") as store:
            held = await store.held(each)
            if held is None and self.tier is not None:
                held = await self.tier.held(store, each) or await store.held(each)
        if held is not None and self.tier is not None:
            self.tier.read([each])
        return held

    async def vectors(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """The vectors of these chunks; one that is gone has none."""
        async with self._reading("read") as store:
            found = await store.vectors(ids)
            missing = [each for each in ids if each not in found]
            if self.tier is not None and missing and (await self.tier.catalogue.view()).cold:
                found |= await self.tier.vectors(store, missing)
        return found

    async def bytes(self) -> int:
        """What its rows take on disk."""
        async with self._reading("read") as store:
            return await store.bytes()

    def cut_as(self, asked: CutAs) -> None:
        """Say who knows which documents are cut in another way than the recipe says: `upsert` was told, rows do not."""
        self._serving.cut_as = asked

    async def rebuild(self) -> None:
        """Build the index anew where the recipe or its model changed; the old one serves until the new one is complete.

        Returns when what serves is what the recipe says. Raises KnowledgeUnavailable, or what the model raises; begun
        again, it goes on with what is left.
        """
        await self._writing.rebuild()

    async def status(self) -> CollectionStatus:
        writing = self._writing
        if self._serving.store is None:
            return CollectionStatus(writing.state, 0, 0, 0, writing.error, writing.last)
        async with self._reading("read") as store:
            (documents, chunks), version = await asyncio.gather(store.count(), store.version())
        error = writing.error or self.upkeep.error
        return CollectionStatus(writing.state, documents, chunks, version, error, writing.last, self.upkeep)

    @property
    def upkeep(self) -> Upkeep:
        """How the table was when maintenance last looked. Costs nothing."""
        return self._tiered(self._serving.upkeep())

    def _tiered(self, found: Upkeep) -> Upkeep:
        """With what the record of cold documents said when somebody last looked."""
        if self.tier is None:
            return found
        return replace(found, cold=len(self.tier.catalogue.seen.cold), error=found.error or self.tier.refusal)

    async def _embed_query(self, text: str) -> Embedded:
        embedder = self._serving.embedder()
        if embedder is None:
            raise KnowledgeUnavailable(f"The model that embedded collection {self.name} is gone.", retry_after=2)
        counter = await self._serving.counter(embedder)
        parts = [text]
        if len(text.encode()) > counter.room:  # no tokenizer makes more tokens than bytes
            parts = await asyncio.to_thread(_readable, text, counter)
        found = await embedder.embed(parts, "query")
        return Embedded(_unit(found.vectors.mean(axis=0)), found.tokens)


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
