"""Follows one stream of messages: each is searchable before it is committed, and a refused one does not stop the rest.

While one batch is written the next is read, cut and embedded. Connects again with growing pauses; knows no broker.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.errors import HearthError, RequestError
from server.knowledge.attributes import Types
from server.knowledge.document import Document
from server.knowledge.ingest import Ahead
from server.knowledge.report import Applied, SourceState
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Change, Message, Poison, read
from server.knowledge.sources.stream import SourceLost, Stream, StreamSpec, connected

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_AHEAD_CHARACTERS = 200_000
"""Of a batch with more text the rest is cut and embedded as it is written, a part at a time."""


class Applying(Protocol):
    """What a collection does for its streams."""

    types: Types

    async def ahead(self, source: str, documents: Sequence[Document]) -> Ahead | None:
        """What `apply` will need of these; it may go on while others are applied. None where it cannot be made now."""
        ...

    async def apply(
        self, source: str, documents: Sequence[Document], gone: Sequence[str], ahead: Ahead | None = None
    ) -> Applied:
        """Make these changes visible. Raises HearthError."""
        ...


@dataclass(frozen=True)
class _Batch:
    """Messages that came together, what they ask for, those that never can be taken, and what was made ahead."""

    messages: Sequence[Message]
    changes: Sequence[Change]
    refused: Sequence[tuple[Message, str]]
    ahead: Ahead | None


class Follower:
    """One stream's life. `run` ends only by being cancelled."""

    def __init__(
        self, spec: StreamSpec, group: str, ledger: Ledger, collection: Applying, lag: Callable[[float], None]
    ) -> None:
        """`lag` hears for each message how many seconds after it was sent it was searchable."""
        self._spec = spec
        self._group = spec.group or group
        self._ledger = ledger
        self._collection = collection
        self._lag = lag
        self.state = SourceState(spec.name, "connecting")

    async def run(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            try:
                async with connected(self._spec, self._group, self._ledger) as stream:
                    coming = asyncio.create_task(self._next(stream), name=f"{self.name}, next batch")
                    try:
                        while True:
                            batch = await coming
                            _end_if_cancelled()
                            coming = asyncio.create_task(self._next(stream), name=f"{self.name}, next batch")
                            await self._finish(stream, batch)
                            _end_if_cancelled()
                            pause = _FIRST_PAUSE_S
                    finally:
                        # What it has read is not committed, so it comes again.
                        coming.cancel()
                        await asyncio.gather(coming, return_exceptions=True)
            except (SourceLost, HearthError) as error:
                self.state.state, self.state.error = "waiting", str(error)
                log.warning("%s: %s; trying again in about %.1f s", self._spec.name, error, pause)
            _end_if_cancelled()
            # Spread, so that many servers do not come back to one broker at the same moment.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def retry(self, message: Message) -> bool:
        """Take in a message that was refused before. False where a newer one is in force. Raises Poison."""
        changes, refused = await asyncio.to_thread(_read, [message], self._spec.name, self._collection.types)
        if not refused:
            async with self._ledger.alone():
                claimed = await self._ledger.claim(changes)
                if not claimed:
                    return False
                refused = await self._apply(claimed)
        if refused:
            raise Poison(refused[0][1])
        return True

    @property
    def name(self) -> str:
        """What its documents say of where they come from."""
        return self._spec.name

    async def _next(self, stream: Stream) -> _Batch:
        """What comes next, if something does, with what can be made of it before its turn."""
        messages = await stream.batch()
        self.state.state, self.state.error = "following", None
        if not messages:
            return _Batch((), (), (), None)
        changes, refused = await asyncio.to_thread(_read, messages, self._spec.name, self._collection.types)
        due = await self._ledger.still_due(_certain(changes))
        documents = [change.document for change in due if change.document is not None]
        ahead = await self._collection.ahead(self._spec.name, documents) if documents else None
        return _Batch(messages, changes, refused, ahead)

    async def _finish(self, stream: Stream, taken: _Batch) -> None:
        batch = taken.messages
        if not batch:
            return
        await self._take(taken)
        now = time.time()
        for message in batch:
            self._lag(max(0.0, now - message.at))
        self.state.lag_seconds = max(0.0, now - batch[-1].at)
        self.state.messages += len(batch)
        self.state.last, self.state.behind = batch[-1].at, stream.behind
        places: dict[str, int] = {}
        for message in batch:
            places[message.partition] = max(message.offset, places.get(message.partition, -1))
        await self._ledger.reached(places)
        await stream.commit(batch)

    async def _take(self, batch: _Batch) -> None:
        await self._bury(batch.refused)
        async with self._ledger.alone():
            refused = await self._apply(await self._ledger.claim(batch.changes), batch.ahead)
        await self._bury(refused)

    async def _bury(self, refused: Sequence[tuple[Message, str]]) -> None:
        await self._ledger.bury(refused)
        self.state.refused += len(refused)
        for message, reason in refused:
            log.warning("%s: message %s/%d is refused: %s", self._spec.name, message.partition, message.offset, reason)

    async def _apply(self, changes: Sequence[Change], ahead: Ahead | None = None) -> list[tuple[Message, str]]:
        """The messages that were refused, with the reasons."""
        if not changes:
            return []
        by_id = {change.id: change.message for change in changes}
        documents = [change.document for change in changes if change.document is not None]
        gone = [change.id for change in changes if change.document is None]
        try:
            applied = await self._collection.apply(self._spec.name, documents, gone, ahead)
        except RequestError as error:
            # One of them will never be taken: each by itself, so that the others are.
            if len(changes) == 1:
                return [(changes[0].message, error.message)]
            return [each for change in changes for each in await self._apply([change], ahead)]
        return [(by_id[each.uri], each.reason) for each in applied.refused]


def _certain(changes: Sequence[Change]) -> list[Change]:
    """Those to make ahead. Of an id that comes twice the ledger will say which is in force, so neither is made."""
    times, found, size = Counter(change.id for change in changes), [], 0
    for change in changes:
        if change.document is not None and times[change.id] == 1:
            size += len(change.document.text)
            if size > _AHEAD_CHARACTERS:
                break
            found.append(change)
    return found


def _end_if_cancelled() -> None:
    """Some clients turn a cancellation into a lost connection or an empty answer; the task remembers it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _read(batch: Sequence[Message], source: str, types: Types) -> tuple[list[Change], list[tuple[Message, str]]]:
    changes: list[Change] = []
    refused: list[tuple[Message, str]] = []
    for message in batch:
        try:
            changes.append(read(message, source, types))
        except Poison as reason:
            refused.append((message, str(reason)))
    return changes, refused
