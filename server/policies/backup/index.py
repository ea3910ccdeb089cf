"""What is where in a backup, as this machine knows it: made anew from the packs' tables where it is missing, and so no
part of the backup."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from server.errors import ServiceError
from server.policies.backup.cid import Cid

_TABLES = (
    "CREATE TABLE IF NOT EXISTS pack (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL, "
    "cid TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS block (cid BLOB NOT NULL, pack INTEGER NOT NULL, begin INTEGER NOT NULL, "
    "size INTEGER NOT NULL, PRIMARY KEY (cid, pack)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS block_in ON block (pack)",
    "CREATE TABLE IF NOT EXISTS bad_table (pack TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS pushed (node TEXT NOT NULL, pack TEXT NOT NULL, PRIMARY KEY (node, pack)) "
    "WITHOUT ROWID",
)
_BUSY_S = 30.0
"""How long another process, such as one that verifies, may hold it."""


class Contents(msgspec.Struct, array_like=True):
    """A pack's table: its bytes as they lie, and each block with its place in the pack once it is opened."""

    size: int
    blocks: list[tuple[bytes, int, int]]
    cid: str
    """Of the file that the pack is, where it is encrypted; else the blocks' own are enough."""


class Found(msgspec.Struct, frozen=True):
    """Where a block is."""

    pack: str
    begin: int
    size: int


class Index:
    """Several processes may have it open; each sees what the others noted."""

    def __init__(self, file: Path) -> None:
        """Raises ServiceError where there can be no such file."""
        self._file = file
        self._database = _connected(file)

    def begin(self, look: Callable[[], None]) -> None:
        """Open it for `look`, which uses it first: once more, empty, where the file turns out to be damaged, for power
        was lost in the middle of a write, perhaps, and the place says it all again."""
        try:
            self._make()
            look()
        except sqlite3.DatabaseError as fault:
            if type(fault) is not sqlite3.DatabaseError:  # one that is locked, or has no room, is sound
                raise
            self._database.close()
            for ending in ("", "-wal", "-shm"):
                self._file.with_name(self._file.name + ending).unlink(missing_ok=True)
            self._database = _connected(self._file)
            self._make()
            look()

    def _make(self) -> None:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", *_TABLES):
            self._database.execute(statement)

    def close(self) -> None:
        self._database.close()

    # ---- packs ------------------------------------------------------------------------------------------------------

    def sizes(self) -> dict[str, int]:
        """The finished packs by name, with their bytes."""
        return dict(self._database.execute("SELECT name, bytes FROM pack"))

    @property
    def names(self) -> frozenset[str]:
        """The finished packs."""
        return frozenset(self.sizes())

    def know(self, name: str, contents: Contents) -> None:
        """Another process may know it already, from its table."""
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            [(number,)] = self._database.execute(
                "INSERT INTO pack (name, bytes, cid) VALUES (?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET bytes = excluded.bytes, cid = excluded.cid RETURNING number",
                (name, contents.size, contents.cid),
            ).fetchall()
            rows = ((cid, number, begin, size) for cid, begin, size in contents.blocks)
            self._database.executemany("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)", rows)

    def forget(self, name: str) -> None:
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("DELETE FROM block WHERE pack = (SELECT number FROM pack WHERE name = ?)", (name,))
            self._database.execute("DELETE FROM pack WHERE name = ?", (name,))
            self._database.execute("DELETE FROM pushed WHERE pack = ?", (name,))

    def cid(self, name: str) -> str:
        """Of an encrypted pack, as a file."""
        [(cid,)] = self._database.execute("SELECT cid FROM pack WHERE name = ?", (name,))
        return str(cid)

    # ---- blocks -----------------------------------------------------------------------------------------------------

    def packs_of(self, cids: Sequence[Cid]) -> dict[bytes, str]:
        """The pack of each of these blocks that is in one."""
        marks = ", ".join("?" * len(cids))
        query = f"SELECT block.cid, name FROM block JOIN pack ON number = pack WHERE block.cid IN ({marks})"
        return dict(self._database.execute(query, [cid.binary for cid in cids]))

    def find(self, cid: Cid) -> Found | None:
        row = self._database.execute(
            "SELECT name, begin, size FROM block JOIN pack ON number = pack WHERE block.cid = ? LIMIT 1", (cid.binary,)
        ).fetchone()
        return None if row is None else Found(*row)

    def blocks(self, name: str) -> set[tuple[bytes, int, int]]:
        """What is in a pack, as `Contents` has it."""
        rows = "SELECT block.cid, begin, size FROM block JOIN pack ON number = pack WHERE name = ?"
        return {*self._database.execute(rows, (name,))}

    # ---- notes ------------------------------------------------------------------------------------------------------

    def mark(self, name: str) -> None:
        """This pack's table is damaged."""
        self._database.execute("INSERT OR IGNORE INTO bad_table VALUES (?)", (name,))

    def marked(self) -> list[str]:
        return [name for (name,) in self._database.execute("SELECT pack FROM bad_table ORDER BY pack")]

    def unmark(self, name: str) -> None:
        self._database.execute("DELETE FROM bad_table WHERE pack = ?", (name,))

    def pushed(self, node: str) -> set[str]:
        """The packs that an IPFS node was given by this machine."""
        return {name for (name,) in self._database.execute("SELECT pack FROM pushed WHERE node = ?", (node,))}

    def push(self, node: str, name: str) -> None:
        """Note that a node was given a pack."""
        self._database.execute("INSERT OR REPLACE INTO pushed VALUES (?, ?)", (node, name))


def _connected(file: Path) -> sqlite3.Connection:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return sqlite3.connect(file, timeout=_BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as fault:
        raise ServiceError(f"The index {file} of the backup cannot be opened: {fault}") from fault
