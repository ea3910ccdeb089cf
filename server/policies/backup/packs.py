"""Blocks of a backup, each kept once, in packs of some 16 MiB: CAR files that never change once they are written.

Beside each pack stands its table of contents, written after it, so that a pack without one was never finished. What is
where is known from an index on this machine, made anew from those tables where it is missing: it is no part of the
backup.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from server.errors import HearthError, ServiceError
from server.place import Place, is_half
from server.policies.backup import car
from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid
from server.policies.backup.seal import Seal
from server.policies.backup.unixfs import LEAF, as_file

FOLDER = "packs"
PACK = 16 * 1024 * 1024
"""Bytes after which a pack is closed."""

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
"""How long another process, such as one that verifies, may hold the index."""
_OPEN_PACKS = 2
_READ_AHEAD = 16 * LEAF


class Contents(msgspec.Struct, array_like=True):
    """A pack's table: its bytes as they lie, and each block with its place in the pack once it is opened."""

    size: int
    blocks: list[tuple[bytes, int, int]]
    cid: str
    """Of the file that the pack is, where it is encrypted; else the blocks' own are enough."""


_contents = msgspec.msgpack.Decoder(Contents)


class Found(msgspec.Struct, frozen=True):
    """Where a block is."""

    pack: str
    begin: int
    size: int


class Packs:
    """The packs of one place. A context manager: what was added is there once `flush` has returned."""

    def __init__(self, place: Place, seal: Seal, index: Path) -> None:
        self._place = place
        self._seal = seal
        self._file = index
        self._index = _connected(index)
        self._open: dict[str, bytes] = {}
        self._pending: list[tuple[Cid, bytes | memoryview[int]]] = []
        self._users: list[set[str]] = []
        self._waiting: dict[Cid, str | None] = {}
        """Blocks that are not in the index yet, with the pack that is being written, None for the next one."""
        self._just: dict[Cid, str] = {}
        """Blocks that came into the index since it was last looked into, with their pack."""
        self._bytes = 0
        self._writing: tuple[str, Future[Contents]] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="packs")
        self.written: list[str] = []
        self.stored = 0
        """Bytes put at the place since this was made."""

    def __enter__(self) -> Self:
        try:
            self._begin()
        except sqlite3.DatabaseError as fault:
            if type(fault) is not sqlite3.DatabaseError:  # one that is locked, or has no room, is sound
                raise
            # Power was lost in the middle of a write, perhaps. The place says it all again.
            self._index.close()
            for ending in ("", "-wal", "-shm"):
                self._file.with_name(self._file.name + ending).unlink(missing_ok=True)
            self._index = _connected(self._file)
            self._begin()
        return self

    def _begin(self) -> None:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", *_TABLES):
            self._index.execute(statement)
        self._catch_up()

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._index.close()

    @property
    def names(self) -> frozenset[str]:
        """The finished packs."""
        return frozenset(name for (name,) in self._index.execute("SELECT name FROM pack"))

    def _catch_up(self) -> None:
        """Make the index agree with what lies at the place: by names and sizes, reading no pack but for a lost table.

        What is known is asked before what is there: another process may be adding packs, and it notes each after it put
        it, so that none is forgotten that has just come.
        """
        known = dict(self._index.execute("SELECT name, bytes FROM pack"))
        there = self._place.names(FOLDER)
        tables = {_name(path) for path in there if path.endswith(f".idx{self._seal.suffix}")}
        whole = {name for name in tables if there.get(self.path(name)) == known.get(name, -1)}
        for name in known.keys() - whole:
            self._forget(name)
        for name in sorted(name for name in tables - whole if self.path(name) in there):
            contents: Contents | None
            try:
                contents = self._told(name)
            except (msgspec.MsgspecError, ServiceError):
                contents = self._read_again(name)
                self._mark(name)
            if contents is not None and there[self.path(name)] == contents.size:
                self._know(name, contents)

    def _told(self, name: str) -> Contents:
        """What a pack's table says. Raises msgspec.MsgspecError or ServiceError where it is damaged."""
        path = self.table(name)
        return _contents.decode(self._seal.open(self._place.get(path), path))

    def _read_again(self, name: str) -> Contents | None:
        """What a pack says of itself, for a table that is damaged; None where the pack is so too."""
        closed = self._place.get(self.path(name))
        data = self._seal.open(closed, self.path(name))
        try:
            blocks = list(car.blocks(memoryview(data)))
        except ValueError:
            return None
        if any(cids.of(cid.codec, block) != cid for cid, _, block in blocks):
            return None
        laid_out = [(cid.binary, begin, len(block)) for cid, begin, block in blocks]
        return Contents(len(closed), laid_out, self._as_it_lies(closed))

    def _mark(self, name: str) -> None:
        """Have a pack's table written anew by whoever may change the place next."""
        self._index.execute("INSERT OR IGNORE INTO bad_table VALUES (?)", (name,))

    def mend(self) -> list[str]:
        """Write the tables anew that were found damaged, from their packs; returns which. Only while the place is held.

        One whose pack is damaged too, or gone, stays as it is.
        """
        mended = []
        for (name,) in self._index.execute("SELECT pack FROM bad_table ORDER BY pack").fetchall():
            with contextlib.suppress(HearthError):
                if (contents := self._read_again(name)) is not None:
                    self._place.put(self.table(name), self._seal.close(msgspec.msgpack.encode(contents)))
                    self._know(name, contents)
                    mended.append(self.table(name))
            if name not in self.names or self.table(name) in mended:
                self._index.execute("DELETE FROM bad_table WHERE pack = ?", (name,))
        return mended

    def _as_it_lies(self, closed: bytes) -> str:
        return str(as_file(closed, lambda cid, block: None).cid) if self._seal.suffix else ""

    def path(self, name: str) -> str:
        return f"{FOLDER}/{name}.car{self._seal.suffix}"

    def table(self, name: str) -> str:
        return f"{FOLDER}/{name}.idx{self._seal.suffix}"

    # ---- writing ----------------------------------------------------------------------------------------------------

    def add(self, cid: Cid, data: "bytes | memoryview[int]", used: set[str]) -> None:
        """Keep a block, if it is not kept already, and let `used` have the name of its pack, at the latest after
        `flush`. `data` may not change until then."""
        self.add_all([(cid, data)], used)

    def add_all(self, blocks: "Sequence[tuple[Cid, bytes | memoryview[int]]]", used: set[str]) -> None:
        """As `add`, of several, with one look into the index."""
        there = self._in([cid for cid, _ in blocks])
        for cid, data in blocks:
            self._add(cid, data, there.get(cid.binary), used)

    def _add(self, cid: Cid, data: "bytes | memoryview[int]", pack: str | None, used: set[str]) -> None:
        if cid in self._waiting:
            self._use(self._waiting[cid], used)
        elif pack is not None:
            used.add(pack)
        elif cid in self._just:
            used.add(self._just[cid])
        else:
            self._use(None, used)
            self._pending.append((cid, data))
            self._waiting[cid] = None
            self._bytes += len(data)
            if self._bytes >= PACK:
                self._write()

    def _use(self, pack: str | None, used: set[str]) -> None:
        if pack is not None:
            used.add(pack)
        elif not self._users or self._users[-1] is not used:
            self._users.append(used)

    def apart(self) -> None:
        """Let what comes now be in other packs than what came, so that it can go without it."""
        if self._pending:
            self._write()

    def flush(self) -> None:
        """Return when everything that was added is at the place. Raises what writing raised."""
        self.apart()
        self._written()

    def _write(self) -> None:
        """Let the thread write what is pending; one pack at a time, so that memory stays bounded."""
        self._written()
        pending, users = self._pending, self._users
        self._pending, self._users, self._bytes = [], [], 0
        name = hashlib.sha256(b"".join(cid.binary for cid, _ in pending)).hexdigest()[:40]
        for used in users:
            used.add(name)
        self._waiting = dict.fromkeys((cid for cid, _ in pending), name)
        self._writing = name, self._thread.submit(self._put, name, pending)

    def _written(self) -> None:
        if self._writing is None:
            return
        name, written = self._writing
        self._writing = None
        self._know(name, written.result())
        self.written += [self.path(name), self.table(name)]
        self._just.update((cid, pack) for cid, pack in self._waiting.items() if pack is not None)
        self._waiting = {cid: pack for cid, pack in self._waiting.items() if pack is None}

    def _put(self, name: str, pending: Sequence[tuple[Cid, "bytes | memoryview[int]"]]) -> Contents:
        """First the pack, then its table: what has a table is whole."""
        parts: list[bytes | memoryview[int]] = [car.header(pending[0][0])]
        for cid, data in pending:
            parts += [car.before(cid, len(data)), data]
        as_it_lies = ""
        if self._seal.suffix:
            closed = self._seal.close(b"".join(parts))
            as_it_lies = self._as_it_lies(closed)
            parts = [closed]
        contents = Contents(sum(map(len, parts)), _laid_out(pending), as_it_lies)
        self._place.put_parts(self.path(name), parts)
        table = self._seal.close(msgspec.msgpack.encode(contents))
        self._place.put(self.table(name), table)
        self.stored += contents.size + len(table)
        return contents

    # ---- reading ----------------------------------------------------------------------------------------------------

    def find(self, cid: Cid) -> Found:
        """Raises ServiceError where the block is in no pack."""
        found = self._where(cid)
        if found is None:
            raise ServiceError(f"The backup in {self._place} lacks the block {cid}.")
        return found

    def read(self, cid: Cid) -> bytes:
        """A block, its sum checked. Raises ServiceError where it is missing or damaged."""
        [data] = self.run([cid])
        return data

    def run(self, wanted: Iterable[Cid]) -> Iterator[bytes]:
        """The blocks in order, each one's sum checked; neighbours in one pack are read at once."""
        batch: list[tuple[Cid, Found]] = []
        for cid in wanted:
            found = self.find(cid)
            if batch and not _continues(batch, found):
                yield from self._checked(batch)
                batch = []
            batch.append((cid, found))
        if batch:
            yield from self._checked(batch)

    def _checked(self, batch: list[tuple[Cid, Found]]) -> Iterator[bytes]:
        first, last = batch[0][1], batch[-1][1]
        data = self._part(first.pack, first.begin, last.begin + last.size - first.begin)
        for cid, found in batch:
            begin = found.begin - first.begin
            block = data[begin : begin + found.size]
            if len(block) != found.size or cids.of(cid.codec, block) != cid:
                raise ServiceError(f"The pack {self.path(found.pack)} in {self._place} is damaged: block {cid}.")
            yield block

    def _part(self, pack: str, begin: int, length: int) -> bytes:
        if not self._seal.suffix:
            return self._place.part(self.path(pack), begin, length)
        if pack not in self._open:
            while len(self._open) >= _OPEN_PACKS:
                self._open.pop(next(iter(self._open)))
            self._open[pack] = self._seal.open(self._place.get(self.path(pack)), self.path(pack))
        return self._open[pack][begin : begin + length]

    def bad_tables(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """The tables of these packs that another machine could not use, with the reason, which `mend` writes anew. Each
        is read anew."""
        for name in names:
            if reason := self._bad_table(name):
                self._mark(name)
                yield self.table(name), reason

    def _bad_table(self, name: str) -> str:
        try:
            contents = self._told(name)
        except msgspec.MsgspecError as fault:
            return f"the pack's table is damaged: {fault}"
        except HearthError as fault:
            return fault.message
        rows = "SELECT block.cid, begin, size FROM block JOIN pack ON number = pack WHERE name = ?"
        if {*map(tuple, contents.blocks)} != {*self._index.execute(rows, (name,))}:
            return "the pack's table is damaged: it is not what the pack holds"
        return ""

    def whole(self, name: str) -> bytes:
        """A pack as it lies at the place."""
        return self._place.get(self.path(name))

    def cid(self, name: str) -> str:
        """Of an encrypted pack, as a file."""
        [(cid,)] = self._index.execute("SELECT cid FROM pack WHERE name = ?", (name,))
        return str(cid)

    def unpushed(self, node: str, names: Iterable[str]) -> list[str]:
        """Those of `names` that `node` has not been given by this machine."""
        given = {name for (name,) in self._index.execute("SELECT pack FROM pushed WHERE node = ?", (node,))}
        return [name for name in names if name not in given]

    def pushed(self, node: str, name: str) -> None:
        self._index.execute("INSERT OR REPLACE INTO pushed VALUES (?, ?)", (node, name))

    # ---- forgetting -------------------------------------------------------------------------------------------------

    def drop(self, names: Iterable[str]) -> None:
        """Delete packs, the table first, so that one that is half deleted is none."""
        for name in names:
            self._forget(name)
            self._place.delete([self.table(name), self.path(name)])

    def unfinished(self, named: Collection[str]) -> list[str]:
        """Files of packs that were never finished.

        None of a pack in `named`, and none of before a change of encryption: this knows nothing of those.
        """
        endings = (f".car{self._seal.suffix}", f".idx{self._seal.suffix}")
        whole = self.names.union(named)
        return [
            path
            for path in self._place.names(FOLDER)
            if is_half(path) or (path.endswith(endings) and _name(path) not in whole)
        ]

    # ---- the index --------------------------------------------------------------------------------------------------

    def _in(self, cids: Sequence[Cid]) -> dict[bytes, str]:
        """The pack of each of these that the index has. What `_just` remembers is in it by then."""
        self._just.clear()
        marks = ", ".join("?" * len(cids))
        query = f"SELECT block.cid, name FROM block JOIN pack ON number = pack WHERE block.cid IN ({marks})"
        return dict(self._index.execute(query, [cid.binary for cid in cids]))

    def _where(self, cid: Cid) -> Found | None:
        row = self._index.execute(
            "SELECT name, begin, size FROM block JOIN pack ON number = pack WHERE block.cid = ? LIMIT 1", (cid.binary,)
        ).fetchone()
        return None if row is None else Found(*row)

    def _know(self, name: str, contents: Contents) -> None:
        """Another process may know it already, from its table."""
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            [(number,)] = self._index.execute(
                "INSERT INTO pack (name, bytes, cid) VALUES (?, ?, ?) ON CONFLICT (name) "
                "DO UPDATE SET bytes = excluded.bytes, cid = excluded.cid RETURNING number",
                (name, contents.size, contents.cid),
            ).fetchall()
            rows = ((cid, number, begin, size) for cid, begin, size in contents.blocks)
            self._index.executemany("INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)", rows)

    def _forget(self, name: str) -> None:
        with self._index:
            self._index.execute("BEGIN IMMEDIATE")
            self._index.execute("DELETE FROM block WHERE pack = (SELECT number FROM pack WHERE name = ?)", (name,))
            self._index.execute("DELETE FROM pack WHERE name = ?", (name,))
            self._index.execute("DELETE FROM pushed WHERE pack = ?", (name,))


def _connected(index: Path) -> sqlite3.Connection:
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        return sqlite3.connect(index, timeout=_BUSY_S, isolation_level=None)
    except (OSError, sqlite3.Error) as fault:
        raise ServiceError(f"The index {index} of the backup cannot be opened: {fault}") from fault


def _laid_out(pending: Sequence[tuple[Cid, "bytes | memoryview[int]"]]) -> list[tuple[bytes, int, int]]:
    """Where each block's bytes stand in the pack."""
    at = len(car.header(pending[0][0]))
    rows = []
    for cid, data in pending:
        at += len(car.before(cid, len(data)))
        rows.append((cid.binary, at, len(data)))
        at += len(data)
    return rows


def _continues(batch: list[tuple[Cid, Found]], found: Found) -> bool:
    first, last = batch[0][1], batch[-1][1]
    gap = found.begin - last.begin - last.size
    return found.pack == last.pack and 0 <= gap <= LEAF and found.begin + found.size - first.begin <= _READ_AHEAD


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
