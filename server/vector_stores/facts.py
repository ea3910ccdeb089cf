"""What `state.db` keeps of vector stores: which there are, the files attached to each, and the batches they came in."""

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec

from config.knowledge import ChunkSpec
from server.knowledge.document import AttributeValue
from server.state import State, Tables

T = TypeVar("T")

Status = Literal["in_progress", "completed", "failed", "cancelled"]
STATUSES: tuple[Status, ...] = ("in_progress", "completed", "failed", "cancelled")
Code = Literal["server_error", "unsupported_file", "invalid_file"]
"""OpenAI's names for why a file was not taken in."""

_TABLES = Tables(
    "vector_stores",
    (
        # `embed` is the model a client's store was made with; NULL is a collection of the recipe.
        "CREATE TABLE vector_stores (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
        " name TEXT NOT NULL, description TEXT, embed TEXT, metadata TEXT NOT NULL, tokens INTEGER, overlap INTEGER,"
        " expires_days INTEGER, created_at INTEGER NOT NULL, last_active_at INTEGER NOT NULL)",
        # `seq` is raised when a file is attached again: what was begun for the row before is then not for this one.
        "CREATE TABLE vector_stores_files (seq INTEGER PRIMARY KEY AUTOINCREMENT,"
        " store TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE, file TEXT NOT NULL,"
        " status TEXT NOT NULL, code TEXT, message TEXT, attributes TEXT NOT NULL, tokens INTEGER, overlap INTEGER,"
        " bytes INTEGER NOT NULL, created_at INTEGER NOT NULL, UNIQUE (store, file))",
        "CREATE TABLE vector_stores_batches (id TEXT PRIMARY KEY,"
        " store TEXT NOT NULL REFERENCES vector_stores (id) ON DELETE CASCADE, created_at INTEGER NOT NULL,"
        " cancelled INTEGER NOT NULL DEFAULT 0)",
        "CREATE TABLE vector_stores_batch_files (batch TEXT NOT NULL REFERENCES vector_stores_batches (id)"
        " ON DELETE CASCADE, file TEXT NOT NULL, PRIMARY KEY (batch, file)) WITHOUT ROWID",
    ),
)
_STORE = "id, name, description, embed, metadata, tokens, overlap, expires_days, created_at, last_active_at"
_FILE = "seq, store, file, status, code, message, attributes, tokens, overlap, bytes, created_at"
_QUIET_SECONDS = 60
"""A store that is searched all the time is not written to each time."""


@dataclass(frozen=True)
class StoreFact:
    """One vector store. `embed` is None for a collection of the recipe; times are Unix seconds."""

    id: str
    name: str
    description: str | None
    embed: str | None
    metadata: Mapping[str, str]
    chunk: ChunkSpec | None
    expires_days: int | None
    created_at: int
    last_active_at: int

    @property
    def expires_at(self) -> int | None:
        return None if self.expires_days is None else self.last_active_at + self.expires_days * 86_400

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= time.time()


@dataclass(frozen=True)
class StoreFile:
    """One file of a store. `chunk` is None where it is cut as the store says; `code` and `message` are its fault."""

    seq: int
    store: str
    file: str
    status: Status
    code: Code | None
    message: str | None
    attributes: Mapping[str, AttributeValue]
    chunk: ChunkSpec | None
    bytes: int
    created_at: int


@dataclass(frozen=True)
class Batch:
    """Files that were attached together; `files` are those of them that are still in the store."""

    id: str
    store: str
    created_at: int
    cancelled: bool
    files: Sequence[StoreFile]

    @property
    def status(self) -> Status:
        found = counts(self.files)
        if found["in_progress"]:
            return "in_progress"
        if self.cancelled:
            return "cancelled"
        return "failed" if self.files and found["failed"] == len(self.files) else "completed"


def counts(files: Iterable[StoreFile]) -> dict[Status, int]:
    """How many files are in each status."""
    found = Counter(file.status for file in files)
    return {status: found[status] for status in STATUSES}


class Facts:
    """The tables, read and written."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def stores(self) -> list[StoreFact]:
        """Oldest first."""
        query = f"SELECT {_STORE} FROM vector_stores ORDER BY seq"
        return await self._run(lambda db: [_store(row) for row in db.execute(query)])

    async def put(self, store: StoreFact) -> None:
        """Add a store, or leave it as it is where there is one of its id."""
        chunk = store.chunk
        values = (
            *(store.id, store.name, store.description, store.embed, _json(store.metadata)),
            *(None if chunk is None else chunk.tokens, None if chunk is None else chunk.overlap),
            *(store.expires_days, store.created_at, store.last_active_at),
        )
        marks = ", ".join("?" * len(values))
        query = f"INSERT INTO vector_stores ({_STORE}) VALUES ({marks}) ON CONFLICT (id) DO NOTHING"
        await self._run(lambda db: db.execute(query, values))

    async def change(self, store: StoreFact) -> None:
        """What a client may change of a store."""
        values = (store.name, _json(store.metadata), store.expires_days, store.last_active_at, store.id)
        query = "UPDATE vector_stores SET name = ?, metadata = ?, expires_days = ?, last_active_at = ? WHERE id = ?"
        await self._run(lambda db: db.execute(query, values))

    async def touch(self, store: str) -> None:
        """The store was used now."""
        now = int(time.time())
        query = "UPDATE vector_stores SET last_active_at = ? WHERE id = ? AND last_active_at < ?"
        await self._run(lambda db: db.execute(query, (now, store, now - _QUIET_SECONDS)))

    async def forget(self, store: str) -> None:
        """The store, its files and its batches."""
        await self._run(lambda db: db.execute("DELETE FROM vector_stores WHERE id = ?", (store,)))

    async def attach(self, files: Sequence[StoreFile], batch: Batch | None) -> None:
        """Add files to their stores, each in place of what was there of it, and the batch they came in."""
        rows = [
            (
                *(each.store, each.file, each.status, _json(each.attributes), each.bytes, each.created_at),
                *((None, None) if each.chunk is None else (each.chunk.tokens, each.chunk.overlap)),
            )
            for each in files
        ]

        def insert(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT OR REPLACE INTO vector_stores_files"
                " (store, file, status, attributes, bytes, created_at, tokens, overlap)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )
            if batch is not None:
                values = (batch.id, batch.store, batch.created_at)
                db.execute("INSERT INTO vector_stores_batches (id, store, created_at) VALUES (?, ?, ?)", values)
                members = [(batch.id, each.file) for each in files]
                db.executemany("INSERT INTO vector_stores_batch_files VALUES (?, ?)", members)

        await self._run(insert)

    async def files(self, store: str) -> list[StoreFile]:
        """Oldest first."""
        return await self._files("WHERE store = ? ORDER BY seq", store)

    async def file(self, store: str, file: str) -> StoreFile | None:
        found = await self._files("WHERE store = ? AND file = ?", store, file)
        return found[0] if found else None

    async def pending(self, store: str, most: int) -> list[StoreFile]:
        """What waits to be taken in, in the order it was attached."""
        return await self._files("WHERE store = ? AND status = 'in_progress' ORDER BY seq LIMIT ?", store, most)

    async def unsettled(self) -> set[str]:
        """Stores with files that wait."""
        query = "SELECT DISTINCT store FROM vector_stores_files WHERE status = 'in_progress'"
        return await self._run(lambda db: {row[0] for row in db.execute(query)})

    async def stores_of(self, file: str) -> list[str]:
        query = "SELECT store FROM vector_stores_files WHERE file = ?"
        return await self._run(lambda db: [row[0] for row in db.execute(query, (file,))])

    async def settle(self, file: StoreFile, status: Status, size: int, fault: tuple[Code, str] | None) -> None:
        """What became of a file that waited; nothing where it was cancelled, detached or attached again meanwhile."""
        code, message = fault or (None, None)
        query = (
            "UPDATE vector_stores_files SET status = ?, bytes = ?, code = ?, message = ?"
            " WHERE seq = ? AND status = 'in_progress'"
        )
        await self._run(lambda db: db.execute(query, (status, size, code, message, file.seq)))

    async def set_attributes(self, store: str, file: str, attributes: Mapping[str, AttributeValue]) -> None:
        query = "UPDATE vector_stores_files SET attributes = ? WHERE store = ? AND file = ?"
        await self._run(lambda db: db.execute(query, (_json(attributes), store, file)))

    async def detach(self, store: str, file: str) -> None:
        query = "DELETE FROM vector_stores_files WHERE store = ? AND file = ?"
        await self._run(lambda db: db.execute(query, (store, file)))

    async def batch(self, store: str, batch: str) -> Batch | None:
        query = "SELECT id, store, created_at, cancelled FROM vector_stores_batches WHERE store = ? AND id = ?"
        row = await self._run(lambda db: db.execute(query, (store, batch)).fetchone())
        if row is None:
            return None
        where = "WHERE store = ? AND file IN (SELECT file FROM vector_stores_batch_files WHERE batch = ?) ORDER BY seq"
        return Batch(row[0], row[1], row[2], bool(row[3]), await self._files(where, store, batch))

    async def cancel(self, batch: Batch) -> None:
        """Files of the batch that still wait are not taken in."""

        def update(db: sqlite3.Connection) -> None:
            db.execute("UPDATE vector_stores_batches SET cancelled = 1 WHERE id = ?", (batch.id,))
            db.execute(
                "UPDATE vector_stores_files SET status = 'cancelled' WHERE store = ? AND status = 'in_progress'"
                " AND file IN (SELECT file FROM vector_stores_batch_files WHERE batch = ?)",
                (batch.store, batch.id),
            )

        await self._run(update)

    async def _files(self, where: str, *values: object) -> list[StoreFile]:
        query = f"SELECT {_FILE} FROM vector_stores_files {where}"
        return await self._run(lambda db: [_file(row) for row in db.execute(query, values)])

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._state.run(_TABLES, work)


def _json(value: Mapping[str, AttributeValue]) -> str:
    return msgspec.json.encode(value).decode()


def _store(row: tuple[Any, ...]) -> StoreFact:
    each, name, description, embed, metadata, tokens, overlap, days, created, active = row
    kept = msgspec.json.decode(metadata, type=dict[str, str])
    return StoreFact(each, name, description, embed, kept, _chunk(tokens, overlap), days, created, active)


def _file(row: tuple[Any, ...]) -> StoreFile:
    seq, store, file, status, code, message, attributes, tokens, overlap, size, created = row
    kept = msgspec.json.decode(attributes, type=dict[str, AttributeValue])
    return StoreFile(seq, store, file, status, code, message, kept, _chunk(tokens, overlap), size, created)


def _chunk(tokens: int | None, overlap: int | None) -> ChunkSpec | None:
    return None if tokens is None or overlap is None else ChunkSpec(tokens=tokens, overlap=overlap)
