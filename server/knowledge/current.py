"""Keeps a collection current while the server runs: follows its streams and watches its files. Knows no HTTP."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from config.knowledge import FilesSource
from server.errors import Conflict, HearthError
from server.knowledge.collection import Collection
from server.knowledge.report import SourceState
from server.knowledge.sources.dead_letters import DeadLetters
from server.knowledge.sources.follow import Follower
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Message
from server.knowledge.sources.watched import FolderGone, changes, gone_for_now
from server.state import State

log = logging.getLogger(__name__)

_PAUSE_S = 5.0


class Current:
    """All sources of one collection. `run` begins after its first sync and ends only by being cancelled."""

    def __init__(self, collection: Collection, state: State, folder: Path, lag: Callable[[float], None]) -> None:
        """`folder` holds the lock of the collection's writers; `lag` hears of each message in seconds."""
        self._collection = collection
        self.letters = DeadLetters(state, collection.name)
        self._watched = [
            _Watched(source, collection)
            for source in collection.spec.sources
            if isinstance(source, FilesSource) and source.watch
        ]
        self._followed = [
            Follower(
                source,
                f"hearth-{collection.name}",
                Ledger(state, folder / f"{collection.name}.lock", collection.name, source.name, self.letters),
                collection,
                lag,
            )
            for source in collection.spec.sources
            if not isinstance(source, FilesSource)
        ]

    @property
    def sources(self) -> Sequence[SourceState]:
        return [*(each.state for each in self._watched), *(each.state for each in self._followed)]

    async def retry(self, source: str, message: Message) -> bool:
        """Take in a message of `source` that was refused before. False where a newer one is in force.

        Raises Poison where it is refused again, Conflict where the recipe has no such source any more.
        """
        follower = next((each for each in self._followed if each.name == source), None)
        if follower is None:
            raise Conflict(f"The recipe has no source `{source[:200]}` any more, so the message cannot be tried again.")
        return await follower.retry(message)

    async def run(self) -> None:
        await self.letters.count()
        async with asyncio.TaskGroup() as tasks:
            for run in (*(each.run for each in self._watched), *(each.run for each in self._followed)):
                tasks.create_task(run())
            await asyncio.Event().wait()


class _Watched:
    """One source of files."""

    def __init__(self, source: FilesSource, collection: Collection) -> None:
        self._source = source
        self._collection = collection
        self.state = SourceState(source.name, "connecting")

    async def run(self) -> None:
        while True:
            try:
                async for paths in changes(self._source.files):
                    report = await self._collection.sync(changed=paths or None)
                    self.state.state, self.state.error, self.state.last = "following", None, time.time()
                    if report.added or report.updated or report.deleted:
                        log.info("collection %s: %s", self._collection.name, report)
            except FolderGone as gone:
                self._wait(str(gone))
                await gone_for_now(self._source.files)
            except (HearthError, OSError) as error:
                self._wait(str(error))
                await asyncio.sleep(_PAUSE_S)

    def _wait(self, reason: str) -> None:
        self.state.state, self.state.error = "waiting", reason
        log.warning("collection %s: %s: %s", self._collection.name, self._source.name, reason)
