"""Refused messages of a collection, kept with their reasons until somebody sends them in again or discards them."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from server.knowledge.sources.message import Message
from server.knowledge.sources.tables import TABLES
from server.state import State

_MOST_LETTERS = 10_000
"""Of one collection; the oldest go first."""
_EXCERPT = 400
_LONGEST_VALUE = 1024**2
_MOST_BYTES = 256 * 1024**2
"""Of the values of one collection; the oldest letters lose theirs first."""
_COLUMNS = "id, source, part, place, key, reason, excerpt, at, whole"


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that was refused. `excerpt` is how its value begins, `at` when it was sent, in seconds since 1970.

    `whole` says that all of its value is kept, so that it can be tried again.
    """

    id: int
    source: str
    partition: str
    offset: int
    key: str | None
    reason: str
    excerpt: str
    at: float
    whole: bool


class DeadLetters:
    """Those of one collection. Every method is one transaction; raises ServiceError."""

    def __init__(self, state: State, collection: str) -> None:
        self.counts: dict[str, int] = {}
        """How many there are by source, as of the last method that was called."""
        self._state = state
        self._collection = collection

    async def bury(self, source: str, letters: Sequence[tuple[Message, str]]) -> None:
        """Keep refused messages with their reasons; one that is delivered again is kept once."""

        def work(connection: sqlite3.Connection) -> dict[str, int]:
            connection.executemany(
                "INSERT OR REPLACE INTO knowledge_dead_letter (collection, source, part, place, key, reason, excerpt, "
                "at, media, value, whole) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [(self._collection, source, *_row(message, reason)) for message, reason in letters],
            )
            connection.execute(
                "DELETE FROM knowledge_dead_letter WHERE collection = ?1 AND id <= "
                "(SELECT id FROM knowledge_dead_letter WHERE collection = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (self._collection, _MOST_LETTERS),
            )
            connection.execute(
                "UPDATE knowledge_dead_letter SET value = NULL, whole = 0 WHERE value IS NOT NULL AND id IN "
                "(SELECT id FROM (SELECT id, sum(length(value)) OVER (ORDER BY id DESC) AS upto "
                "FROM knowledge_dead_letter WHERE collection = ?1) WHERE upto > ?2)",
                (self._collection, _MOST_BYTES),
            )
            return self._counted(connection)

        if letters:
            self.counts = await self._state.run(TABLES, work)

    async def every(self) -> list[DeadLetter]:
        """All of them, oldest first."""

        def work(connection: sqlite3.Connection) -> list[DeadLetter]:
            sql = f"SELECT {_COLUMNS} FROM knowledge_dead_letter WHERE collection = ? ORDER BY id"
            return [_letter(row) for row in connection.execute(sql, (self._collection,))]

        return await self._state.run(TABLES, work)

    async def find(self, each: int) -> tuple[DeadLetter, Message] | None:
        """One, and the message it was; of a letter that is not whole, a message without a value."""

        def work(connection: sqlite3.Connection) -> tuple[DeadLetter, Message] | None:
            sql = f"SELECT {_COLUMNS}, media, value FROM knowledge_dead_letter WHERE collection = ? AND id = ?"
            row = connection.execute(sql, (self._collection, each)).fetchone()
            if row is None:
                return None
            *facts, media, value = row
            letter = _letter(facts)
            return letter, Message(letter.partition, letter.offset, letter.key, value, media, letter.at)

        return await self._state.run(TABLES, work)

    async def explain(self, each: int, reason: str) -> None:
        """Why it was refused the last time."""

        def work(connection: sqlite3.Connection) -> None:
            sql = "UPDATE knowledge_dead_letter SET reason = ? WHERE collection = ? AND id = ?"
            connection.execute(sql, (reason, self._collection, each))

        await self._state.run(TABLES, work)

    async def discard(self, each: int) -> bool:
        """Whether there was one to discard."""

        def work(connection: sqlite3.Connection) -> tuple[bool, dict[str, int]]:
            sql = "DELETE FROM knowledge_dead_letter WHERE collection = ? AND id = ?"
            gone = connection.execute(sql, (self._collection, each)).rowcount
            return bool(gone), self._counted(connection)

        gone, self.counts = await self._state.run(TABLES, work)
        return gone

    async def count(self) -> dict[str, int]:
        """How many there are by source."""
        self.counts = await self._state.run(TABLES, self._counted)
        return self.counts

    def _counted(self, connection: sqlite3.Connection) -> dict[str, int]:
        sql = "SELECT source, count(*) FROM knowledge_dead_letter WHERE collection = ? GROUP BY source"
        return dict(connection.execute(sql, (self._collection,)).fetchall())


def _row(message: Message, reason: str) -> tuple[object, ...]:
    value = message.value
    whole = value is None or len(value) <= _LONGEST_VALUE
    excerpt = "" if value is None else value[:_EXCERPT].decode("utf-8", "replace")
    place = (message.partition, message.offset, message.key)
    return (*place, reason, excerpt, message.at, message.content_type, value if whole else None, whole)


def _letter(row: Sequence[Any]) -> DeadLetter:
    number, source, partition, offset, key, reason, excerpt, at, whole = row
    return DeadLetter(number, source, partition, offset, key, reason, excerpt, at, bool(whole))
