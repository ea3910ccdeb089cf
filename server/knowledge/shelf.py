"""A collection's life: opened once its model can embed, brought up to date, held open until cancelled."""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from config.knowledge import CollectionSpec
from server.errors import HearthError, KnowledgeUnavailable
from server.knowledge.collection import Collection
from server.knowledge.current import Current
from server.knowledge.document import AttributeValue
from server.knowledge.embedder import Loading
from server.knowledge.rebuild import CutAs
from server.knowledge.refused import Refused
from server.knowledge.report import CollectionStatus, SourceState, Upkeep

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 5.0, 300.0


class Shelf:
    """One collection's life in this process: opened when its embed model is ready, then kept up to date."""

    def __init__(self, name: str, collection: Collection, embedder: Loading, current: Current | None = None) -> None:
        """`current` keeps it so after its first sync, where it has sources."""
        self.name = name
        self.opened = False
        self.settled = False
        self.error: str | None = None
        self.rebuild_error: str | None = None
        self._collection = collection
        self._embedder = embedder
        self._current = current
        self._done = asyncio.Event()

    @property
    def collection(self) -> Collection:
        """The open collection. Raises KnowledgeUnavailable while it cannot answer."""
        if self.opened:
            return self._collection
        if self.error is not None:
            raise KnowledgeUnavailable(f"Collection {self.name} could not be opened: {self.error}", retry_after=30)
        raise KnowledgeUnavailable(f"Collection {self.name} is being opened; try again soon.", retry_after=2)

    @property
    def spec(self) -> CollectionSpec:
        return self._collection.spec

    @property
    def state(self) -> str:
        if self.error is not None:
            return "failed"
        return "ready" if self.settled else "syncing" if self.opened else "opening"

    @property
    def upkeep(self) -> Upkeep:
        """How its table was when maintenance last looked."""
        upkeep = self._collection.upkeep
        return upkeep if self.rebuild_error is None else replace(upkeep, error=upkeep.error or self.rebuild_error)

    @property
    def sources(self) -> Sequence[SourceState]:
        """What each watched or followed source is doing."""
        return () if self._current is None else self._current.sources

    @property
    def current(self) -> Current | None:
        """What keeps it current; None where a client made it."""
        return self._current

    @property
    def refused(self) -> Refused | None:
        """The files that were not taken in, where they are kept."""
        return self._collection.refused

    def cut_as(self, asked: CutAs) -> None:
        """As the collection's."""
        self._collection.cut_as(asked)

    def check(self, attributes: Mapping[str, AttributeValue]) -> None:
        """As the collection's `check`, also while it is being opened."""
        self._collection.check(attributes)

    async def status(self) -> CollectionStatus | None:
        """What the collection tells of itself; None while it is not open."""
        if not self.opened:
            return None
        status = await self._collection.status()
        return replace(status, error=status.error or self.rebuild_error)

    async def ready(self) -> None:
        """Wait for the first sync. Raises KnowledgeUnavailable where the collection failed."""
        await self._done.wait()
        _ = self.collection

    async def keep(self) -> None:
        """Open, bring up to date, and hold open until cancelled. A fault is this collection's alone."""
        try:
            await self._embedder.ready()
            async with self._collection:
                self.opened = (await self._collection.status()).chunks > 0
                report = await self._collection.sync(lambda line: log.debug("%s: %s", self.name, line))
                log.info("collection %s: %s", self.name, report)
                self.opened = self.settled = True
                self._done.set()
                rebuilding = asyncio.create_task(self._rebuild(), name=f"rebuilding {self.name}")
                try:
                    await (self._current.run() if self._current is not None else asyncio.Event().wait())
                finally:
                    rebuilding.cancel()
                    await asyncio.wait([rebuilding])
        except (HearthError, OSError, ValueError, RuntimeError) as error:
            # LanceDB reports every fault of a table as one of these; the others keep serving.
            self.error = str(error)
            self._done.set()
            log.error("collection %s: %s", self.name, error)
        finally:
            self.opened = False

    async def _rebuild(self) -> None:
        """Bring the index to what the recipe says, however often that fails: the old one goes on serving."""
        pause = _FIRST_PAUSE_S
        while True:
            try:
                await self._collection.rebuild()
            except HearthError as error:
                self.rebuild_error = error.message
                log.warning("collection %s: %s; trying again in %.0f s", self.name, error.message, pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self.rebuild_error = None
                return
