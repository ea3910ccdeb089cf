"""`state.db`: the small facts that outlive the process, in SQLite. Knows no family's tables; each brings its own.

A family declares its tables once and works on them where the database lives, in its own thread:

    TABLES = Tables("notes", ("CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT NOT NULL)",))
    await state.run(TABLES, lambda connection: connection.execute("INSERT INTO note VALUES (?, ?)", ("n1", "...")))
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from server.errors import ServiceError

log = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY_SECONDS = 10.0
"""How long another process (`hearth ingest` beside a server) may hold the database before a write gives up."""

_VERSIONS = "CREATE TABLE IF NOT EXISTS family (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True)
class Tables:
    """One family's tables. `steps` are the statements that made them, oldest first, each one statement.

    A step that was released never changes: a new version of the tables is a further step. Table names are the
    database's, so a family begins its own with its name.
    """

    family: str
    steps: tuple[str, ...]


class State:
    """The open database. Make it with `open`; one thread owns the connection, so work is done in the order asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")
        self._connection: sqlite3.Connection | None = None
        self._current: set[Tables] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator["State"]:
        """The database at `path`, made when missing, until the block ends. Raises ServiceError where it is none."""
        state = cls(path)
        try:
            await state._owned(state._connect)
            yield state
        finally:
            await state._owned(state._disconnect)
            state._thread.shutdown(wait=False)

    async def run(self, tables: Tables, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns of the family's tables, done as one transaction: an exception undoes all of it.

        A transaction that began is ended, even when whoever awaits it is cancelled. Raises ServiceError for faults of
        the database (disk full, damaged, held by another process), besides what `work` raises itself.
        """
        return await self._owned(lambda: self._transaction(tables, work))

    async def _owned(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise ServiceError(f"The database {self._path} failed: {error}.") from error

    # ---- in the owner thread ----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(f"The folder {self._path.parent} cannot be made: {error.strerror}.") from error
        # No implicit transactions: `_transaction` begins and ends them.
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        self._connection = connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(_VERSIONS)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transaction(self, tables: Tables, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection
        if connection is None:
            raise ServiceError(f"The database {self._path} is closed.")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if tables not in self._current:
                _migrate(connection, tables)
            result = work(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has already ended it
                connection.execute("ROLLBACK")
            raise
        self._current.add(tables)
        return result


def _migrate(connection: sqlite3.Connection, tables: Tables) -> None:
    """Take the steps that this database has not seen."""
    row = connection.execute("SELECT version FROM family WHERE name = ?", (tables.family,)).fetchone()
    version = row[0] if row else 0
    if version > len(tables.steps):
        raise ServiceError(
            f"The tables of `{tables.family}` in state.db are of version {version}; this Hearth knows "
            f"{len(tables.steps)}. Use the newer Hearth that wrote them, or another server.data."
        )
    for step in tables.steps[version:]:
        connection.execute(step)
    if version < len(tables.steps):
        connection.execute("INSERT OR REPLACE INTO family VALUES (?, ?)", (tables.family, len(tables.steps)))
        log.info("state.db: tables of %s are of version %d now", tables.family, len(tables.steps))
