"""What must outlive the process about messages: which are in force, and how far each partition is.

Claims are written before the rows: a message older than its document's claim is never applied again, and the one that
made the claim is redelivered until its rows are there, because its offset is committed only then.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from server.knowledge.sources.dead_letters import DeadLetters
from server.knowledge.sources.message import Change, Message
from server.knowledge.sources.tables import TABLES
from server.state import State

_LOCK_POLL_S = 0.005


class Claim(NamedTuple):
    """The message that says what a document is now."""

    partition: str
    offset: int
    version: int | None


def is_stale(new: Claim, held: Claim) -> bool:
    """Whether `new` is older than `held`. A version decides where both have one, else the order within a partition.

    Without either nothing orders them, and what comes last is in force.
    """
    if new.version is not None and held.version is not None and new.version != held.version:
        return new.version < held.version
    return new.partition == held.partition and new.offset < held.offset


class Ledger:
    """One source's facts in state.db. Every method is one transaction; raises ServiceError."""

    def __init__(
        self, state: State, lock: Path, collection: str, source: str, letters: DeadLetters | None = None
    ) -> None:
        """`lock` is a file of the collection that its writers hold, one at a time, in whichever process they are.

        `letters` are those of the collection.
        """
        self._letters = letters or DeadLetters(state, collection)
        self._state = state
        self._lock = lock
        self._of = (collection, source)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No other process claims and writes meanwhile: between the two an older row could land on a newer."""
        file = _opened(self._lock)
        try:
            while not _locked(file):  # noqa: ASYNC110  (another process has it, which has no event for us)
                await asyncio.sleep(_LOCK_POLL_S)
            yield
        finally:
            os.close(file)

    async def claim(self, changes: Sequence[Change]) -> list[Change]:
        """Those that are in force, in their order: the newest of each document, unless a newer one was claimed."""

        def work(connection: sqlite3.Connection) -> list[Change]:
            latest: dict[str, Change] = {}
            for change in changes:
                if not self._is_outdated(connection, change):
                    connection.execute(
                        "INSERT OR REPLACE INTO knowledge_claim VALUES (?, ?, ?, ?, ?, ?)",
                        (*self._of, change.id, *_claim(change)),
                    )
                    latest[change.id] = change
            return list(latest.values())

        return await self._state.run(TABLES, work)

    async def still_due(self, changes: Sequence[Change]) -> list[Change]:
        """Those that nothing newer outdates by now. Claims none of them."""

        def work(connection: sqlite3.Connection) -> list[Change]:
            return [change for change in changes if not self._is_outdated(connection, change)]

        return await self._state.run(TABLES, work)

    def _is_outdated(self, connection: sqlite3.Connection, change: Change) -> bool:
        row = connection.execute(
            "SELECT part, place, version FROM knowledge_claim WHERE collection = ? AND source = ? AND document = ?",
            (*self._of, change.id),
        ).fetchone()
        return row is not None and is_stale(_claim(change), Claim(*row))

    async def bury(self, letters: Sequence[tuple[Message, str]]) -> None:
        """As of DeadLetters."""
        await self._letters.bury(self._of[1], letters)

    async def positions(self) -> dict[str, int]:
        """The last offset of each partition whose rows are visible; -1 for one that was only begun."""

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            sql = "SELECT part, place FROM knowledge_position WHERE collection = ? AND source = ?"
            return dict(connection.execute(sql, self._of).fetchall())

        return await self._state.run(TABLES, work)

    async def reached(self, places: dict[str, int]) -> None:
        """Rows up to these offsets are visible."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO knowledge_position VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET place = max(place, excluded.place)",
                [(*self._of, part, place) for part, place in places.items()],
            )

        await self._state.run(TABLES, work)

    async def forget(self, partition: str | None = None) -> None:
        """The log begins anew, and its offsets no longer order anything: of one partition, or of all."""

        def work(connection: sqlite3.Connection) -> None:
            for table in ("knowledge_claim", "knowledge_position"):
                connection.execute(
                    f"DELETE FROM {table} WHERE collection = ? AND source = ? AND coalesce(part = ?, true)",
                    (*self._of, partition),
                )
            # A letter of the log that is no more comes before and after nothing in the new one.
            connection.execute(
                "UPDATE knowledge_dead_letter SET part = part || '~' || id "
                "WHERE collection = ? AND source = ? AND coalesce(part = ?, true)",
                (*self._of, partition),
            )

        await self._state.run(TABLES, work)


def _claim(change: Change) -> Claim:
    return Claim(change.message.partition, change.message.offset, change.version)


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
