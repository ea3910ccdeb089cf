"""Uploaded files: their bytes in the data directory under their hash, their facts in `state.db`. Knows no HTTP.

Two uploads of the same bytes share one file on disk. A name that a client sends is a fact and never a path.
"""

import asyncio
import hashlib
import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from server.errors import NotFound, ServiceError
from server.state import State, Tables

_TABLES = Tables(
    "files",
    (
        "CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, sha256 TEXT NOT NULL,"
        " bytes INTEGER NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, created_at INTEGER NOT NULL,"
        " expires_at INTEGER)",
        "CREATE INDEX files_sha256 ON files (sha256)",
    ),
)
_COLUMNS = "id, sha256, bytes, filename, purpose, created_at, expires_at"
_PIECE = 1024 * 1024
"""Bytes that are written at once: a thread for each of the network's small pieces would cost more than the disk."""
_INCOMING = "incoming"


@dataclass(frozen=True)
class StoredFile:
    """`created_at` and `expires_at` are Unix seconds; None is never."""

    id: str
    sha256: str
    bytes: int
    filename: str
    purpose: str
    created_at: int
    expires_at: int | None


class Incoming:
    """Bytes on their way to disk. One task uses it. Raises ServiceError where the disk does not take them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._hash = hashlib.sha256()
        self._waiting = bytearray()

    @property
    def sha256(self) -> str:
        """Of all bytes, once `finish` was awaited."""
        return self._hash.hexdigest()

    async def write(self, piece: bytes | bytearray) -> None:
        self._waiting += piece
        if len(self._waiting) >= _PIECE:
            await self._flush()

    async def finish(self) -> None:
        """Everything is on disk when this returns, and survives a power cut."""
        await self._flush()
        with _disk():
            await asyncio.to_thread(_sync, self.path)

    async def _flush(self) -> None:
        piece, self._waiting = bytes(self._waiting), bytearray()
        with _disk():
            await asyncio.to_thread(self._append, piece)

    def _append(self, piece: bytes) -> None:
        self._hash.update(piece)
        self.bytes += len(piece)
        with self.path.open("ab") as file:
            file.write(piece)


class Files:
    """Every uploaded file of one data directory, which one process at a time serves. Make it with `open`."""

    def __init__(self, state: State, folder: Path) -> None:
        self._state = state
        self._folder = folder
        # A file's bytes must not be deleted with one upload's facts while another's of equal bytes are being written.
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, state: State, folder: Path) -> "Files":
        """Also removes what uploads that were cut off, and files that expired, left on disk."""
        files = cls(state, folder)
        with _disk():
            await asyncio.to_thread(files._empty_incoming)
        await files._expire()
        held = await state.run(_TABLES, lambda db: {row[0] for row in db.execute("SELECT sha256 FROM files")})
        with _disk():
            await asyncio.to_thread(files._drop_others, held)
        return files

    @asynccontextmanager
    async def incoming(self) -> AsyncIterator[Incoming]:
        """Where an upload's bytes go; what `keep` has not taken by the end of the block is removed."""
        path = self._folder / _INCOMING / token_hex(16)
        try:
            yield Incoming(path)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def keep(self, incoming: Incoming, filename: str, purpose: str, seconds: int | None) -> StoredFile:
        """Make an upload a file, which is gone after `seconds`."""
        await self._expire()
        await incoming.finish()
        now = int(time.time())
        expires = None if seconds is None else now + seconds
        file = StoredFile(f"file-{token_hex(16)}", incoming.sha256, incoming.bytes, filename, purpose, now, expires)

        def insert(db: sqlite3.Connection) -> None:
            values = (file.id, file.sha256, file.bytes, file.filename, file.purpose, file.created_at, file.expires_at)
            db.execute(f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)

        async with self._turn:
            with _disk():
                await asyncio.to_thread(_place, incoming.path, self.path(file))
            await self._state.run(_TABLES, insert)
        return file

    async def find(self, file_id: str) -> StoredFile:
        """Raises NotFound."""
        found = await self._read("WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)", file_id, int(time.time()))
        if not found:
            raise NotFound(f"There is no file `{file_id[:100]}`.", param="file_id")
        return found[0]

    async def every(self) -> list[StoredFile]:
        """Oldest first."""
        return await self._read("WHERE expires_at IS NULL OR expires_at > ? ORDER BY seq", int(time.time()))

    async def delete(self, file_id: str) -> None:
        """Raises NotFound."""
        await self._delete(await self.find(file_id))

    def path(self, file: StoredFile) -> Path:
        """Where its bytes lie."""
        return self._folder / file.sha256[:2] / file.sha256

    async def _read(self, where: str, *values: object) -> list[StoredFile]:
        query = f"SELECT {_COLUMNS} FROM files {where}"
        return await self._state.run(_TABLES, lambda db: [StoredFile(*row) for row in db.execute(query, values)])

    async def _expire(self) -> None:
        for file in await self._read("WHERE expires_at <= ?", int(time.time())):
            await self._delete(file)

    async def _delete(self, file: StoredFile) -> None:
        def forget(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM files WHERE id = ?", (file.id,))
            return db.execute("SELECT 1 FROM files WHERE sha256 = ?", (file.sha256,)).fetchone() is None

        async with self._turn:
            if await self._state.run(_TABLES, forget):
                with _disk():
                    await asyncio.to_thread(self.path(file).unlink, missing_ok=True)

    def _empty_incoming(self) -> None:
        shutil.rmtree(self._folder / _INCOMING, ignore_errors=True)
        (self._folder / _INCOMING).mkdir(parents=True)

    def _drop_others(self, held: set[str]) -> None:
        """A crash between a rename and its facts leaves bytes that nothing names."""
        for path in self._folder.glob("??/*"):
            if path.name not in held:
                path.unlink()


def _place(path: Path, place: Path) -> None:
    """The whole file appears under its name, or nothing does."""
    place.parent.mkdir(exist_ok=True)
    path.replace(place)
    _sync(place.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _disk() -> Iterator[None]:
    """Faults of the disk as the user meets them."""
    try:
        yield
    except OSError as error:
        raise ServiceError(f"The data directory does not take files: {error.strerror}.") from error
