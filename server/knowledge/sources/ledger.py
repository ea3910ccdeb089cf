"""What must outlive the process about messages: which are in force, how far each partition is, the refused ones.

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

import msgspec

from server.knowledge.sources.message import Change, Message
from server.state import State, Tables

TABLES = Tables(
    "knowledge",
    (
        "CREATE TABLE knowledge_claim (collection TEXT NOT NULL, source TEXT NOT NULL, document TEXT NOT NULL, "
        "part TEXT NOT NULL, place INTEGER NOT NULL, version INTEGER, "
        "PRIMARY KEY (collection, source, document)) WITHOUT ROWID",
        "CREATE TABLE knowledge_position (collection TEXT NOT NULL, source TEXT NOT NULL, part TEXT NOT NULL, "
        "place INTEGER NOT NULL, PRIMARY KEY (collection, source, part)) WITHOUT ROWID",
        "CREATE TABLE knowledge_dead_letter (id INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, "
        "source TEXT NOT NULL, part TEXT NOT NULL, place INTEGER NOT NULL, key TEXT, reason TEXT NOT NULL, "
        "excerpt TEXT NOT NULL, at REAL NOT NULL, UNIQUE (collection, source, part, place))",
    ),
)
_MOST_LETTERS = 10_000
"""Of one collection; the oldest go first."""
_EXCERPT = 400
_LOCK_POLL_S = 0.005


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was refused. `excerpt` is how its value begins, `at` when it was sent, in seconds since 1970."""

    source: str
    partition: str
    offset: int
    key: str | None
    reason: str
    excerpt: str
    at: float


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

    def __init__(self, state: State, lock: Path, collection: str, source: str) -> None:
        """`lock` is a file of the collection that its writers hold, one at a time, in whichever process they are."""
        self._state = state
        self._lock = lock
        self._of = (collection, source)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """No other process claims and writes meanwhile: between the two an older row could land on a newer."""
        file = await asyncio.to_thread(_opened, self._lock)
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
                row = connection.execute(
                    "SELECT part, place, version FROM knowledge_claim "
                    "WHERE collection = ? AND source = ? AND document = ?",
                    (*self._of, change.id),
                ).fetchone()
                claim = Claim(change.message.partition, change.message.offset, change.version)
                if row is None or not is_stale(claim, Claim(*row)):
                    connection.execute(
                        "INSERT OR REPLACE INTO knowledge_claim VALUES (?, ?, ?, ?, ?, ?)",
                        (*self._of, change.id, *claim),
                    )
                    latest[change.id] = change
            return list(latest.values())

        return await self._state.run(TABLES, work)

    async def bury(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Keep refused messages with their reasons; one that is delivered again is kept once."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO knowledge_dead_letter (collection, source, part, place, key, reason, excerpt, "
                "at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (*self._of, each.partition, each.offset, each.key, reason, _begin(each.value), each.at)
                    for each, reason in letters
                ],
            )
            connection.execute(
                "DELETE FROM knowledge_dead_letter WHERE collection = ?1 AND id <= "
                "(SELECT id FROM knowledge_dead_letter WHERE collection = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (self._of[0], _MOST_LETTERS),
            )

        if letters:
            await self._state.run(TABLES, work)

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

        await self._state.run(TABLES, work)


async def dead_letters(state: State, collection: str) -> list[DeadLetter]:
    """The refused messages of a collection, newest first."""

    def work(connection: sqlite3.Connection) -> list[DeadLetter]:
        sql = (
            "SELECT source, part, place, key, reason, excerpt, at FROM knowledge_dead_letter "
            "WHERE collection = ? ORDER BY id DESC"
        )
        return [DeadLetter(*row) for row in connection.execute(sql, (collection,))]

    return await state.run(TABLES, work)


async def dead_letter_counts(state: State) -> dict[str, int]:
    """How many refused messages each collection keeps."""

    def work(connection: sqlite3.Connection) -> dict[str, int]:
        sql = "SELECT collection, count(*) FROM knowledge_dead_letter GROUP BY collection"
        return dict(connection.execute(sql).fetchall())

    return await state.run(TABLES, work)


def _begin(value: bytes | None) -> str:
    return "" if value is None else value[:_EXCERPT].decode("utf-8", "replace")


def _opened(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
