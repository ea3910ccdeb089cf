"""Which documents of a collection lie in cold storage, and how often documents are found: facts of state.db.

A document that moves is on record from before its first row is written to after its last row is deleted, so that a
move that was cut off can be finished or undone. Whether a document counts as cold is decided here alone: what a search
finds in cold storage is shown only while the record says so.
"""

import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from server.knowledge.stored import Listed, Stored
from server.state import State, Tables

T = TypeVar("T")

Stage = Literal["cooling", "cold", "warming", "gone"]
"""Where a move is. cooling: its rows are being written to cold storage, and only the local ones count. cold: the cold
ones count; local ones are gone or are about to be deleted. warming: the same, while its rows are being written back.
gone: the cold rows count no more and are to be deleted."""

_TABLES = Tables(
    "tier",
    (
        "CREATE TABLE tier_moves (collection TEXT PRIMARY KEY, moves INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE tier_cold (collection TEXT NOT NULL, document TEXT NOT NULL, stage TEXT NOT NULL, "
        "digest TEXT NOT NULL, chunks INTEGER NOT NULL, since REAL NOT NULL, stored TEXT NOT NULL, "
        "listed TEXT NOT NULL, PRIMARY KEY (collection, document)) WITHOUT ROWID",
        "CREATE TABLE tier_use (collection TEXT NOT NULL, document TEXT NOT NULL, hash TEXT NOT NULL, "
        "since REAL NOT NULL, used REAL NOT NULL, reads INTEGER NOT NULL, PRIMARY KEY (collection, document)) "
        "WITHOUT ROWID",
        "CREATE TABLE tier_owner (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL)",
    ),
)
_COLUMNS = "document, stage, digest, chunks, since, stored, listed"
_COUNTING: tuple[Stage, ...] = ("cold", "warming")
_PART = 500
"""Ids that one statement names."""

_stored = msgspec.json.Decoder(Stored)
_listed = msgspec.json.Decoder(Listed)


class Entry(msgspec.Struct, frozen=True):
    """One document that is, or is about to be, in cold storage. `digest` is of its rows, `since` of this stage."""

    document: str
    stage: Stage
    digest: str
    chunks: int
    since: float
    stored: Stored
    listed: Listed


class View(msgspec.Struct, frozen=True):
    """The documents that count as cold, by id. `moves` is another number whenever they are others."""

    moves: int
    cold: Mapping[str, Entry]


class Use(msgspec.Struct, frozen=True):
    """When a document was first seen as it is, when it was last found, and how often: seconds since 1970."""

    document: str
    since: float
    used: float
    reads: int


class Catalogue:
    """The records of one collection. Every process with the data directory sees the same. Raises ServiceError."""

    def __init__(self, state: State, collection: str, clock: Callable[[], float] = time.time) -> None:
        self.collection = collection
        self.clock = clock
        self._state = state
        self._view = View(-1, {})

    async def view(self) -> View:
        """What counts as cold now."""
        seen = self._view

        def work(connection: sqlite3.Connection) -> View:
            moves = _moves(connection, self.collection)
            if moves == seen.moves:
                return seen
            return View(moves, {each.document: each for each in self._read(connection, _COUNTING)})

        found = await self._run(work)
        if found.moves > self._view.moves:  # another task may have looked later
            self._view = found
        return found

    @property
    def seen(self) -> View:
        """As it was when somebody last looked."""
        return self._view

    async def entries(self, stage: Stage | None = None) -> list[Entry]:
        """Every document on record, or those of one stage."""
        stages = (stage,) if stage is not None else ("cooling", "cold", "warming", "gone")
        return await self._run(lambda connection: self._read(connection, stages))

    # ---- stages of a move -------------------------------------------------------------------------------------------

    async def begin(self, entries: Sequence[Entry]) -> None:
        """Put them on record as cooling, before their rows are written."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO tier_cold VALUES (?, ?, 'cooling', ?, ?, ?, ?, ?)",
                [
                    (self.collection, each.document, each.digest, each.chunks, each.since, *_json(each))
                    for each in entries
                ],
            )
            _moved(connection, self.collection)

        await self._run(work)

    async def cooled(self, ids: Collection[str]) -> list[str]:
        """From now on the cold rows count; the ids of which nobody took the document out meanwhile."""
        return await self._turn(ids, ("cooling",), "cold")

    async def warming(self, ids: Collection[str]) -> list[str]:
        return await self._turn(ids, ("cold",), "warming")

    async def unwarmed(self, ids: Collection[str]) -> list[str]:
        """They stay cold after all."""
        return await self._turn(ids, ("warming",), "cold")

    async def left(self, ids: Collection[str]) -> list[str]:
        """From now on the local rows count; the ids of which nobody took the document out meanwhile."""
        return await self._turn(ids, ("warming",), "gone")

    async def forget(self, ids: Collection[str]) -> list[str]:
        """The cold copies of these count no more: another version took their place, or they were deleted."""
        return await self._turn(ids, ("cooling", *_COUNTING), "gone")

    async def drop(self, ids: Collection[str]) -> None:
        """Take off the record what is gone, once its rows are."""

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM tier_cold WHERE collection = ? AND document = ? AND stage = 'gone'",
                [(self.collection, each) for each in ids],
            )

        await self._run(work)

    async def touch(self) -> None:
        """Have every process look at the cold table's newest version."""
        await self._run(lambda connection: _moved(connection, self.collection))

    async def _turn(self, ids: Collection[str], old: Sequence[Stage], new: Stage) -> list[str]:
        if not ids:
            return []

        def work(connection: sqlite3.Connection) -> list[str]:
            turned: list[str] = []
            every = list(ids)
            for at in range(0, len(every), _PART):
                part = every[at : at + _PART]
                found = connection.execute(
                    f"UPDATE tier_cold SET stage = ?, since = ? WHERE collection = ? "
                    f"AND stage IN ({_marks(old)}) AND document IN ({_marks(part)}) RETURNING document",
                    (new, self.clock(), self.collection, *old, *part),
                )
                turned += [row[0] for row in found]
            if turned:
                _moved(connection, self.collection)
            return turned

        return await self._run(work)

    # ---- use --------------------------------------------------------------------------------------------------------

    async def note(self, reads: Mapping[str, int]) -> None:
        """Documents that were found so often since the last note."""
        now = self.clock()

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO tier_use VALUES (?, ?, '', ?, ?, ?) ON CONFLICT DO UPDATE "
                "SET used = max(used, excluded.used), reads = reads + excluded.reads",
                [(self.collection, each, now, now, count) for each, count in reads.items()],
            )

        await self._run(work)

    async def uses(self, documents: Mapping[str, str]) -> list[Use]:
        """Of every document, given with its hash. One that is seen for the first time as it is, is so since now."""
        now = self.clock()

        def work(connection: sqlite3.Connection) -> list[Use]:
            connection.executemany(
                "INSERT INTO tier_use VALUES (?, ?, ?, ?, 0, 0) ON CONFLICT DO UPDATE "
                "SET hash = excluded.hash, since = excluded.since WHERE hash <> excluded.hash",
                [(self.collection, each, digest, now) for each, digest in documents.items()],
            )
            found = connection.execute(
                "SELECT document, since, used, reads FROM tier_use WHERE collection = ?", (self.collection,)
            ).fetchall()
            over = [row[0] for row in found if row[0] not in documents]
            connection.executemany(
                "DELETE FROM tier_use WHERE collection = ? AND document = ?", [(self.collection, each) for each in over]
            )
            return [Use(*row) for row in found if row[0] in documents]

        return await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._state.run(_TABLES, work)

    def _read(self, connection: sqlite3.Connection, stages: Sequence[str]) -> list[Entry]:
        return _entries(connection, self.collection, stages)


async def owner(state: State, fresh: str) -> str:
    """The name by which cold storage knows this data directory: `fresh` where it has none yet."""

    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT OR IGNORE INTO tier_owner VALUES (1, ?)", (fresh,))
        return str(connection.execute("SELECT name FROM tier_owner").fetchone()[0])

    return await state.run(_TABLES, work)


def cold_counts(database: Path) -> dict[str, int]:
    """How many documents of each collection are in cold storage, by state.db. Blocks; for processes without a State."""
    if not database.exists():
        return {}
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tier_cold'").fetchone() is None:
            return {}
        counted = "SELECT collection, count(*) FROM tier_cold WHERE stage IN (?, ?) GROUP BY collection"
        return dict(connection.execute(counted, _COUNTING))


def cold_entries(database: Path, collection: str) -> list[Entry]:
    """The documents of a collection that count as cold, by state.db or a copy of it. Blocks."""
    if not cold_counts(database):
        return []
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return _entries(connection, collection, _COUNTING)


def forget_cold(database: Path, collection: str, ids: Sequence[str]) -> None:
    """Let the local rows of these count again, in a state.db that nobody uses. Blocks."""
    if collection not in cold_counts(database):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(
            "UPDATE tier_cold SET stage = 'gone' WHERE collection = ? AND document = ?",
            [(collection, each) for each in ids],
        )
        _moved(connection, collection)


def _entries(connection: sqlite3.Connection, collection: str, stages: Sequence[str]) -> list[Entry]:
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM tier_cold WHERE collection = ? AND stage IN ({_marks(stages)})", (collection, *stages)
    )
    return [
        Entry(document, stage, digest, chunks, since, _stored.decode(stored), _listed.decode(listed))
        for document, stage, digest, chunks, since, stored, listed in found
    ]


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _json(entry: Entry) -> tuple[str, str]:
    return msgspec.json.encode(entry.stored).decode(), msgspec.json.encode(entry.listed).decode()


def _moves(connection: sqlite3.Connection, collection: str) -> int:
    row = connection.execute("SELECT moves FROM tier_moves WHERE collection = ?", (collection,)).fetchone()
    return 0 if row is None else int(row[0])


def _moved(connection: sqlite3.Connection, collection: str) -> None:
    connection.execute(
        "INSERT INTO tier_moves VALUES (?, 1) ON CONFLICT DO UPDATE SET moves = moves + 1", (collection,)
    )
