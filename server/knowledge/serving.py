"""What of a collection answers just now: its table and what keeps it, and the model whose vectors are in it.

While another table is built, because the recipe or its model changed, that is the old one; then the model it was made
with has to be found among those that are loaded, and where it is not, words alone are searched.
"""

import asyncio
import importlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from server.errors import KnowledgeUnavailable
from server.knowledge.confidence import Asking, Confidence, SelfTest
from server.knowledge.counting import Counter, counter
from server.knowledge.embedder import Blank, Embedder
from server.knowledge.lock import InUse
from server.knowledge.maintenance import Maintenance
from server.knowledge.optimizer import Optimizer
from server.knowledge.rebuild import CutAs, Into, Rebuild, Turn, as_the_recipe_says
from server.knowledge.record import MadeWith, Speed
from server.knowledge.report import Rebuilding, Upkeep
from server.models.prompts import Side

if TYPE_CHECKING:
    from server.knowledge.attributes import Types
    from server.knowledge.licences import Licences
    from server.knowledge.maintenance import Measure
    from server.knowledge.store import Store
    from server.knowledge.tables import Opened, Tables

log = logging.getLogger(__name__)

STORE_FAULTS = (OSError, ValueError, RuntimeError)
"""What LanceDB raises for every fault of a table."""
First = Callable[["Store"], Awaitable[None]]

_WORTH_NOTING = 64
"""Chunks an ingest has to embed before its speed tells something."""
_ASIDE = 4
"""Texts of a self-test that are embedded together: who writes or asks meanwhile waits for no more."""
_OTHER_REBUILDS_S = 1.0
REBUILD = "rebuild"
"""The mark held by who builds an index anew."""


class Serving:
    """One collection's. `open` first, `close` last. Faults of the store are LanceDB's."""

    def __init__(
        self,
        name: str,
        embedder: Embedder,
        others: Sequence[Embedder],
        folder: Path,
        optimizer: Optimizer | None = None,
    ) -> None:
        """`others` are models that may be loaded too: one of them may be that of an older table.

        `optimizer` has a process for the upkeep that takes long.
        """
        self.name = name
        self.cut_as: CutAs = as_the_recipe_says
        self._embedder = embedder
        self._others = others
        self._folder = folder
        self._optimizer = optimizer
        self._tables: Tables | None = None
        self._opened: Opened | None = None
        self._rebuild: Rebuild | None = None
        self._maintenance: Maintenance | None = None
        self._self_test = SelfTest(folder)
        self._counters: dict[str, Counter] = {}
        self._awaited = False
        """Whether a sync waits for the self-test, which then takes no rest."""
        self._following = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def open(
        self, made: MadeWith, types: "Types", probe: NDArray[np.float32], *, hot: int, language: str
    ) -> None:
        """The table that serves. `made` and `probe` are what a table made now would have."""
        # Imports LanceDB, which takes a second of processor time: only where a collection opens, and in a thread.
        shape_room = await asyncio.to_thread(importlib.import_module, "server.knowledge.shape")
        table_room = await asyncio.to_thread(importlib.import_module, "server.knowledge.tables")
        now = shape_room.Shape(types, made.fingerprint, probe, made)
        tables: Tables = table_room.Tables(self._folder, now, hot=hot, language=language)
        self._tables = tables
        await self._serve(await tables.serving())
        if not await self.is_current():
            log.info("collection %s: %s; the index is built anew", self.name, await self._reason())

    async def close(self) -> None:
        await self._self_test.close()
        opened, self._opened = self._opened, None
        if opened is not None:
            if self._maintenance is not None:
                await self._maintenance.close()
            await opened.close()
        await asyncio.gather(*self._retiring, return_exceptions=True)

    @property
    def store(self) -> "Store | None":
        return None if self._opened is None else self._opened.store

    @asynccontextmanager
    async def reading(self) -> "AsyncIterator[Store]":
        """The table that serves, open until the block ends. Raises KnowledgeUnavailable where none is open."""
        opened = await self._followed()
        async with opened.read() as store:
            yield store

    @asynccontextmanager
    async def writing(self) -> "AsyncIterator[Store]":
        """As `reading`; until the block ends no other process puts another table in its place."""
        async with self._known().writing(), self.reading() as store:
            yield store

    # ---- the model --------------------------------------------------------------------------------------------------

    def embedder(self) -> Embedder | None:
        """The model that the table's vectors are of; None where it is not among those that are loaded."""
        store = self._of_now()
        if store.shape.has_model_of(self._known().now):
            return self._embedder
        made = store.shape.made
        if made is None or not made.identity:
            return None
        return next((each for each in self._others if each.card and each.card.identity == made.identity), None)

    async def counter(self, embedder: Embedder) -> Counter:
        """Counts tokens as this model does."""
        if embedder.name not in self._counters:
            assert embedder.card is not None, "a model that embeds has said what it is"
            self._counters[embedder.name] = await asyncio.to_thread(counter, embedder.card)
        return self._counters[embedder.name]

    async def writer(self) -> Embedder:
        """The model for rows of this table. Where it is gone they are without, and the table never serves vectors."""
        store, tables = self._of_now(), self._known()
        if (found := self.embedder()) is not None:
            return found
        await asyncio.to_thread(tables.records.change, lambda record: replace(record, blank=True))
        return Blank(store.dimension)

    @property
    def note(self) -> str | None:
        """Why vectors cannot be searched, for whoever asks for them; None where they can."""
        if self.embedder() is not None:
            return None
        return "The embedding model changed: until the new index is built, words alone are searched."

    # ---- confidence and upkeep --------------------------------------------------------------------------------------

    @property
    def confidence(self) -> Confidence:
        return self._self_test.known

    def notice(self, version: int) -> None:
        """Hear of the table's version."""
        if self.embedder() is not None:
            self._self_test.notice(version)

    async def learn(self) -> None:
        """Find out how far each leg can be trusted, where that is not known of what is here now."""
        if self.embedder() is None:
            return
        self._awaited = True
        try:
            await self._self_test.renew()
        finally:
            self._awaited = False

    async def note_speed(self, speed: Speed) -> None:
        """What an ingest into this table embedded."""
        if speed.chunks >= _WORTH_NOTING and speed.tokens and self._opened is not None:
            await asyncio.to_thread(self._known().records.note_speed, speed)

    async def wrote(self, store: "Store") -> None:
        """After each commit. Words can be searched from the first on; the rest happens behind it."""
        await store.index_words()
        if self._maintenance is not None and store is self.store:
            self._maintenance.wake()

    def wake(self) -> None:
        """Have maintenance look at the table: somebody wrote to it."""
        if self._maintenance is not None:
            self._maintenance.wake()

    def upkeep(self, found: "Measure | None" = None) -> Upkeep:
        """How the table was when maintenance last looked, or as it is `found`. Costs nothing."""
        maintenance, store = self._maintenance, self.store
        if maintenance is None or store is None:
            return Upkeep()
        found = found or maintenance.measure
        return Upkeep(
            documents=found.documents,
            chunks=found.rows,
            fragments=found.fragments,
            unindexed=found.unindexed,
            versions=found.versions,
            bytes=found.disk,
            hot=store.hot_rows,
            failures=maintenance.failures,
            error=maintenance.error,
            pending=0 if self._rebuild is None else self._rebuild.pending,
            rebuild=self._progress(),
        )

    def _progress(self) -> Rebuilding | None:
        return None if self._rebuild is None else replace(self._rebuild.progress, note=self.note)

    # ---- another table ----------------------------------------------------------------------------------------------

    @property
    def rebuild(self) -> Rebuild | None:
        """What is being built, if something is."""
        return self._rebuild

    async def is_current(self) -> bool:
        """Whether the table's rows are what they would be if they were made now."""
        return await self._known().is_current(await self._followed())

    async def renew(self, into: Into, licences: "Licences", turn: asyncio.Lock, first: "First") -> None:
        """Build the table anew where the recipe or its model changed, and serve it once it is complete.

        Returns at once where nothing changed. Only one process builds; others wait and then serve what it built.
        `turn` is held by who writes in this process, and `first` is called with the old table before the new one is
        begun.
        """
        mine = InUse(self._folder, REBUILD)
        while not await self.is_current():
            if await asyncio.to_thread(mine.hold_alone):
                try:
                    if not await self.is_current():
                        await first(self._of_now())
                        await self._build(into, licences, turn)
                finally:
                    mine.let_go()
            else:
                await asyncio.sleep(_OTHER_REBUILDS_S)
        await self._known().sweep(*([] if self._opened is None else [self._opened]))

    async def _build(self, into: Into, licences: "Licences", turn: asyncio.Lock) -> None:
        tables, old = self._known(), await self._followed()
        new = await tables.building(old)
        # Under the turn, so that no write of this process is half done for the old table alone.
        async with turn:
            reason = await self._reason()
            rebuild = Rebuild(old.store, new.store, into, licences, self.cut_as, reason, self._optimizer)
            self._rebuild = rebuild
        switched = False

        async def switch() -> None:
            nonlocal switched
            await tables.switch(new)
            switched = True
            self._rebuild = None
            await self._serve(new)

        try:
            await rebuild.run(_together(turn, tables.writing), _together(turn, tables.switching), switch)
        finally:
            self._rebuild = None
            if not switched:
                await new.close()
        done = rebuild.progress
        log.info(
            "collection %s: the new index serves: %d documents, %d chunks embedded in %.1f s",
            self.name,
            done.documents,
            done.chunks,
            done.seconds,
        )
        await self.note_speed(rebuild.speed)

    async def _reason(self) -> str:
        store, now = self._of_now(), self._known().now
        made = store.shape.made
        if made is None or now.made is None:
            return "the recipe or its model changed"
        found = made.unlike(now.made, other_model=not store.shape.has_model_of(now))
        return ", ".join(found) or "some documents came while their embedding model was gone"

    async def _followed(self) -> "Opened":
        """The table that serves now, which another process may have switched."""
        tables, opened = self._known(), self._opened
        if opened is not None and tables.moved:
            async with self._following:
                opened = self._opened
                if opened is not None and tables.moved and not await tables.still_serves(opened):
                    opened = await tables.serving()
                    await self._serve(opened)
        if opened is None:
            raise KnowledgeUnavailable(f"Collection {self.name} is not open.", retry_after=2)
        return opened

    async def _serve(self, opened: "Opened") -> None:
        """Read and keep this table from now on; the one before is closed once its last reader has left."""
        before, kept_by, test = self._opened, self._maintenance, self._self_test
        self._opened = opened
        self._maintenance = Maintenance(opened.store, self.name, self._optimizer)
        self._maintenance.start()
        self._self_test = SelfTest(self._folder)
        if (embedder := self.embedder()) is not None:
            asking = Asking(
                opened.store,
                opened.store.table,
                _vectors(embedder, lambda: self._awaited),
                await self.counter(embedder),
            )
            await self._self_test.open(asking)
        if before is not None and kept_by is not None:
            task = asyncio.create_task(self._retire(before, kept_by, test), name=f"retiring a table of {self.name}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _retire(self, opened: "Opened", maintenance: Maintenance, test: SelfTest) -> None:
        await test.close()
        await maintenance.close(last=False)
        await opened.close()
        try:
            await self._known().sweep(*([] if self._opened is None else [self._opened]))
        except STORE_FAULTS as error:
            log.warning("collection %s: an old table was not removed: %s", self.name, error)

    def _known(self) -> "Tables":
        if self._tables is None:
            raise KnowledgeUnavailable(f"Collection {self.name} is not open.", retry_after=2)
        return self._tables

    def _of_now(self) -> "Store":
        if self._opened is None:
            raise KnowledgeUnavailable(f"Collection {self.name} is not open.", retry_after=2)
        return self._opened.store


def _vectors(
    embedder: Embedder, is_awaited: Callable[[], bool]
) -> Callable[[Sequence[str], Side], Awaitable[NDArray[np.float32]]]:
    async def embed(texts: Sequence[str], side: Side) -> NDArray[np.float32]:
        parts = []
        for at in range(0, len(texts), _ASIDE):
            began = time.monotonic()
            parts.append((await embedder.embed(texts[at : at + _ASIDE], side)).vectors)
            if not is_awaited():
                await asyncio.sleep(time.monotonic() - began)  # half of the model is for others
        return np.concatenate(parts)

    return embed


def _together(turn: asyncio.Lock, lock: Turn) -> Turn:
    @asynccontextmanager
    async def both() -> AsyncIterator[None]:
        async with turn, lock():
            yield

    return both
