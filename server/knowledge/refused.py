"""Which files a collection did not take, and why: kept in state.db until they are taken, or gone. Knows no files."""

import sqlite3
import time
from collections.abc import Sequence, Set

import msgspec

from server.knowledge.report import Skipped
from server.state import State, Tables

SYNCED = "sync"
"""What brings the declared sources in. Any other bringer is named by the path that was ingested."""

_TABLES = Tables(
    "knowledge_refused",
    (
        "CREATE TABLE knowledge_refused (collection TEXT NOT NULL, brought TEXT NOT NULL, uri TEXT NOT NULL, "
        "reason TEXT NOT NULL, at REAL NOT NULL, "
        "PRIMARY KEY (collection, brought, uri)) WITHOUT ROWID",
    ),
)


class RefusedFile(msgspec.Struct, frozen=True):
    """`brought` is the path that was ingested, None for the declared sources. `at` is in seconds since 1970."""

    uri: str
    brought: str | None
    reason: str
    at: float


class Refused:
    """The files of one collection. Every method is one transaction; raises ServiceError."""

    def __init__(self, state: State, collection: str) -> None:
        self.held = 0
        """How many there are, as of the last method that was called."""
        self._state = state
        self._collection = collection

    async def note(
        self,
        brought: str,
        skipped: Sequence[Skipped],
        still: Set[str] = frozenset(),
        looked_at: Set[str] | None = None,
    ) -> None:
        """What the last ingest of `brought` left out takes the place of what the one before did.

        Of the uris in `still`, and of those not in `looked_at` where that is given, that ingest read nothing: what was
        said of them stays.
        """
        if looked_at is not None and not skipped and not self.held:
            return

        def work(connection: sqlite3.Connection) -> int:
            of = (self._collection, brought)
            sql = "SELECT uri, reason FROM knowledge_refused WHERE collection = ? AND brought = ?"
            before: dict[str, str] = dict(connection.execute(sql, of).fetchall())
            after = {each.uri: each.reason for each in skipped}
            sql = "DELETE FROM knowledge_refused WHERE collection = ? AND brought = ? AND uri = ?"
            left = before.keys() - after.keys() - still
            connection.executemany(sql, [(*of, uri) for uri in (left if looked_at is None else left & looked_at)])
            sql = "INSERT OR REPLACE INTO knowledge_refused VALUES (?, ?, ?, ?, ?)"
            new = [(*of, uri, reason, time.time()) for uri, reason in after.items() if before.get(uri) != reason]
            connection.executemany(sql, new)
            return self._count(connection)

        self.held = await self._state.run(_TABLES, work)

    async def every(self) -> list[RefusedFile]:
        """All of them, by what brought them and their uris."""

        def work(connection: sqlite3.Connection) -> list[RefusedFile]:
            sql = "SELECT uri, nullif(brought, ?), reason, at FROM knowledge_refused WHERE collection = ?"
            found = connection.execute(f"{sql} ORDER BY brought, uri", (SYNCED, self._collection))
            return [RefusedFile(*row) for row in found]

        return await self._state.run(_TABLES, work)

    async def count(self) -> int:
        self.held = await self._state.run(_TABLES, self._count)
        return self.held

    def _count(self, connection: sqlite3.Connection) -> int:
        sql = "SELECT count(*) FROM knowledge_refused WHERE collection = ?"
        return int(connection.execute(sql, (self._collection,)).fetchone()[0])
