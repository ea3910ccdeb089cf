"""What changes a collection: one ingest at a time, into its table and the one that is built, and how the last went."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import Conflict, HearthError, InvalidValue, KnowledgeUnavailable
from server.knowledge.attributes import Types, check, fitting
from server.knowledge.document import AttributeValue, Document, Unreadable, document_id
from server.knowledge.embedder import Embedder
from server.knowledge.group_commit import GroupCommit
from server.knowledge.ingest import Ahead, Cutter, Ingest
from server.knowledge.licences import Licences
from server.knowledge.refused import SYNCED, Refused
from server.knowledge.report import Applied, IngestReport, Progress, Skipped
from server.knowledge.serving import STORE_FAULTS, Serving
from server.knowledge.splitter import Limits
from server.knowledge.stored import Stored
from server.knowledge.sync import bring_folder, bring_sources, changed_alone
from server.knowledge.tier import Tier

if TYPE_CHECKING:
    from server.knowledge.store import Store


class Writing:
    """One collection's, whose methods of the same names say what these do.

    `state` and `error` are what the collection tells of itself, `last` is the report of its last ingest.
    """

    def __init__(
        self,
        name: str,
        spec: CollectionSpec,
        types: Types,
        serving: Serving,
        embedder: Embedder,
        refused: Refused | None,
        tier: Tier | None = None,
    ) -> None:
        self.state = "opening"
        self.error: str | None = None
        self.last: IngestReport | None = None
        self._name = name
        self._spec = spec
        self._types = types
        self._serving = serving
        self._embedder = embedder
        self._refused = refused
        self._tier = tier
        self._turn = asyncio.Lock()
        self._licences = Licences.of(spec)
        self._together = GroupCommit(self._turn, self._made, self._put)

    async def upsert(self, documents: Sequence[Document], chunk: ChunkSpec | None = None) -> IngestReport:
        for document in documents:
            self.check(document.attributes)
            if reason := self._licences.refusal(document.licence):
                raise InvalidValue(f"The document is refused: {reason}.", param="licence")
        report = (await self._together.put(documents, chunk)).of({document.uri for document in documents})
        if report.declared:
            raise Conflict(f"`{report.declared[0]}` comes from a source of the recipe, which alone says what it holds.")
        return report

    async def _made(self, documents: Sequence[Document], chunk: ChunkSpec | None) -> Ahead | None:
        """What `_put` will need of them; None where the table has no model just now."""
        store = self._opened_store()
        if (embedder := self._serving.embedder()) is None:
            return None
        return await Ahead.of(documents, await self._cutter_of(store, chunk, embedder), embedder)

    async def _put(self, documents: Sequence[Document], chunk: ChunkSpec | None, ahead: Ahead | None) -> IngestReport:
        """Documents that are allowed here; under the turn."""
        async with self._ingesting(chunk, ids=[document.id for document in documents]) as ingest:
            declared = {each for each, held in ingest.known.items() if held.is_declared}
            free = [document for document in documents if document.id not in declared]
            await self._take(free, chunk)
            await ingest.add(free, ahead)
            await ingest.finish()
        return replace(ingest.report, declared=tuple(each.uri for each in documents if each.id in declared))

    async def close(self) -> None:
        """Let a commit end that has begun."""
        await self._together.close()

    async def delete(self, ids: Sequence[str]) -> IngestReport:
        async with self._ingest(ids=ids) as ingest:
            await ingest.delete([each for each in ids if each in ingest.known])
        return ingest.report

    async def ahead(self, source: str, documents: Sequence[Document]) -> Ahead | None:
        documents = [self._licences.applied(document) for document in documents]
        allowed = {each.id: each for each in documents if not self._licences.refusal(each.licence)}
        try:
            async with self._serving.reading() as store:
                known = await store.documents(list(allowed)) if store.may_know(allowed) else {}
                wanted = [each for each in allowed.values() if not _is_as_it_is(known.get(each.id), source, each)]
                return await self._made(wanted, None) if wanted else None
        except (HearthError, *STORE_FAULTS):
            return None

    async def apply(
        self, source: str, documents: Sequence[Document], gone: Sequence[str], ahead: Ahead | None = None
    ) -> Applied:
        documents = [self._licences.applied(document) for document in documents]
        refused = {each.id: reason for each in documents if (reason := self._licences.refusal(each.licence))}
        ids = [*(document.id for document in documents), *gone]
        async with self._ingest(ids=ids) as ingest:
            known = ingest.known
            foreign = {each for each, held in known.items() if held.source != source and held.is_declared}
            wanted = []
            for document in documents:
                as_it_is = _is_as_it_is(known.get(document.id), source, document)
                if document.id not in foreign and (document.id in refused or not as_it_is):
                    wanted.append(document)
            await self._take([document for document in wanted if document.id not in refused])
            await ingest.add(wanted, ahead)
            await ingest.finish()
            deleted = [each for each in gone if each in known and each not in foreign]
            await ingest.delete(deleted)
        refused |= {each.uri: each.reason for each in ingest.report.skipped}
        refused |= {each: f"{known[each].source} has a document of this id" for each in foreign}
        taken = [document.id for document in documents if document.id not in refused]
        return Applied(
            written=tuple(each for each in taken if each in ingest.written),
            unchanged=tuple(each for each in taken if each not in ingest.written),
            deleted=tuple(deleted),
            refused=tuple(Skipped(each, refused[each]) for each in ids if each in refused),
        )

    async def push(self, documents: Sequence[Document], gone: Sequence[str]) -> Applied:
        documents = [self._licences.applied(document) for document in documents]
        refused = {each.id: reason for each in documents if (reason := self._licences.refusal(each.licence))}
        applied = await self.apply("upsert", [each for each in documents if each.id not in refused], gone)
        return replace(applied, refused=(*(Skipped(*each) for each in refused.items()), *applied.refused))

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        self.check(attributes)
        async with self._ingest(ids=()):
            # The new table first: nothing else would tell that it lacks this.
            if (rebuild := self._serving.rebuild) is not None:
                await rebuild.new.set_attributes(each, attributes)
            store = self._opened_store()
            if self._tier is not None:
                await self._tier.bring_back(store, [each])
            await store.set_attributes(each, fitting(attributes, store.types))

    def check(self, attributes: Mapping[str, AttributeValue]) -> None:
        try:
            check(attributes, self._types)
        except Unreadable as error:
            raise InvalidValue(f"{str(error)[:1].upper()}{str(error)[1:]}.", param="attributes") from error

    async def sync(self, progress: Progress | None = None, *, changed: Set[Path] | None = None) -> IngestReport:
        alone = await asyncio.to_thread(changed_alone, self._spec.sources, changed) if changed else None
        async with self._ingest(ids=None if alone is None else [document_id(file.path) for file, _ in alone]) as ingest:
            if alone is None:
                await bring_sources(ingest, self._spec.sources, progress, changed)
            else:
                await ingest.files(alone, progress)
            await ingest.refuse_known()
        if self._refused is not None:
            kept = frozenset() if changed is None else ingest.untouched
            looked_at = None if alone is None else {file.uri for file, _ in alone}
            await self._refused.note(SYNCED, ingest.report.skipped, kept, looked_at)
        if changed is None:
            await self._serving.learn()
        else:  # the next change does not wait for it
            self._serving.notice(await self._opened_store().version())
        return ingest.report

    async def ingest(self, path: Path, progress: Progress | None = None) -> IngestReport:
        async with self._ingest() as ingest:
            await bring_folder(ingest, path, progress)
        if self._refused is not None:
            await self._refused.note(str(path), ingest.report.skipped)
        await self._serving.learn()
        return ingest.report

    async def rebuild(self) -> None:
        try:
            await self._serving.renew(self._into, self._licences, self._turn, self._bring_back)
        except STORE_FAULTS as error:
            raise KnowledgeUnavailable(f"Collection {self._name} could not be built anew: {error}") from error
        await self._serving.learn()

    async def _bring_back(self, store: "Store") -> None:
        """Cold rows are made as those of the table are: all come back before it is built anew."""
        if self._tier is not None:
            await self._tier.bring_back(store)

    @contextmanager
    def faults(self, what: str) -> Iterator[None]:
        """Note a fault; one of the store becomes a KnowledgeUnavailable."""
        try:
            yield
        except HearthError as error:
            self.state, self.error = "failed", error.message
            raise
        except STORE_FAULTS as error:
            self.state, self.error = "failed", str(error)
            raise KnowledgeUnavailable(f"Collection {self._name} {what}: {error}") from error

    @asynccontextmanager
    async def _ingest(self, *, ids: Sequence[str] | None = None) -> AsyncIterator[Ingest]:
        """One ingest at a time. `ids` are the documents it may touch; None stands for all."""
        async with self._turn, self._ingesting(ids=ids) as ingest:
            yield ingest

    @asynccontextmanager
    async def _ingesting(
        self, chunk: ChunkSpec | None = None, *, ids: Sequence[str] | None = None
    ) -> AsyncIterator[Ingest]:
        """As `_ingest`, under the turn; its report, its fault and the state are kept for `status`."""
        self._opened_store()
        self.state = "syncing"
        try:
            with self.faults("could not be brought up to date"):
                self.error = None
                async with self._serving.writing() as store:
                    embedder = await self._serving.writer()
                    cutter = await self._cutter_of(store, chunk, embedder)
                    known = await store.known(ids)
                    if self._tier is not None:
                        known = await self._tier.known(ids) | known
                    ingest = Ingest(store, embedder, cutter, known, lambda: self._wrote(store, ingest))
                    yield ingest
                if embedder is self._embedder:
                    await self._serving.note_speed(ingest.speed)
            self.last = ingest.report
        finally:
            if self.state == "syncing":
                self.state = "ready"

    async def _wrote(self, store: "Store", ingest: Ingest) -> None:
        """After each commit. What it wrote or deleted has no place in cold storage any more."""
        if self._tier is not None:
            touched, ingest.touched = ingest.touched, set()
            await self._tier.forget(touched)
        await self._serving.wrote(store)

    async def _take(self, documents: Sequence[Document], chunk: ChunkSpec | None = None) -> None:
        """Bring documents into the table that is being built as well, if one is."""
        if (rebuild := self._serving.rebuild) is not None:
            await rebuild.take(documents, chunk)

    async def _into(self, store: "Store", known: Mapping[str, Stored], chunk: ChunkSpec | None) -> Ingest:
        """An ingest into a table that is being built."""
        cutter = await self._cutter(chunk or self._spec.chunk, self._embedder)
        return Ingest(store, self._embedder, cutter, known, partial(self._serving.wrote, store))

    def _opened_store(self) -> "Store":
        if (store := self._serving.store) is None:
            raise KnowledgeUnavailable(f"Collection {self._name} is not open.", retry_after=2)
        return store

    async def _cutter_of(self, store: "Store", chunk: ChunkSpec | None, embedder: Embedder) -> Cutter:
        """Cuts as is asked, else as the table's rows are cut."""
        made = store.shape.made
        return await self._cutter(chunk or (self._spec.chunk if made is None else made.chunk), embedder)

    async def _cutter(self, chunk: ChunkSpec, embedder: Embedder) -> Cutter:
        counter = await self._serving.counter(self._embedder if embedder.card is None else embedder)
        return Cutter(self._types, Limits(chunk.tokens, chunk.overlap, counter.room), counter, self._licences)


def _is_as_it_is(held: Stored | None, source: str, document: Document) -> bool:
    """Whether the table has this document from this source already."""
    return held is not None and (held.source, held.hash) == (source, document.hash)
