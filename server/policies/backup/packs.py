"""Blocks of a backup, each kept once, in packs of some 16 MiB: CAR files that never change once they are written.

Beside each pack stands its table of contents, written after it, so that a pack without one was never finished.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from server.errors import HearthError, ServiceError
from server.place import Place, is_half
from server.policies.backup import car
from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid
from server.policies.backup.filling import Filling, rooms
from server.policies.backup.index import Contents, Found, Index
from server.policies.backup.seal import Seal
from server.policies.backup.unixfs import LEAF, as_file

FOLDER = "packs"
PACK = 16 * 1024 * 1024
"""Bytes after which a pack is closed."""

_UNDER_WAY = 3
"""Packs of which one is being filled and the others may not be at the place yet."""
_OPEN_PACKS = 2
_READ_AHEAD = 16 * LEAF

_contents = msgspec.msgpack.Decoder(Contents)


class _Writing(NamedTuple):
    pack: Filling
    done: Future[Contents]


class Packs:
    """The packs of one place. A context manager: what was added is there once `flush` has returned."""

    def __init__(self, place: Place, seal: Seal, index: Path) -> None:
        self._place = place
        self._seal = seal
        self._index = Index(index)
        self._open: dict[str, bytes] = {}
        self._rooms = rooms()
        self._filling: Filling | None = None
        self._users: list[set[str]] = []
        self._waiting: dict[Cid, str | None] = {}
        """Blocks that are not in the index yet, with their pack, None for the one that is being filled."""
        self._just: dict[Cid, str] = {}
        """Blocks that came into the index since it was last looked into, with their pack."""
        self._writing: deque[_Writing] = deque()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="packs")
        self.written: list[str] = []
        self.stored = 0
        """Bytes put at the place since this was made."""

    def __enter__(self) -> Self:
        self._index.begin(self._catch_up)
        return self

    def __exit__(self, *_: object) -> None:
        if self._filling is not None:
            self._filling.close(None)
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._index.close()

    @property
    def names(self) -> frozenset[str]:
        """The finished packs."""
        return self._index.names

    def _catch_up(self) -> None:
        """Make the index agree with what lies at the place: by names and sizes, reading no pack but for a lost table.

        What is known is asked before what is there: another process may be adding packs, and it notes each after it put
        it, so that none is forgotten that has just come.
        """
        known = self._index.sizes()
        there = self._place.names(FOLDER)
        tables = {_name(path) for path in there if path.endswith(f".idx{self._seal.suffix}")}
        whole = {name for name in tables if there.get(self.path(name)) == known.get(name, -1)}
        for name in known.keys() - whole:
            self._index.forget(name)
        for name in sorted(name for name in tables - whole if self.path(name) in there):
            contents: Contents | None
            try:
                contents = self._told(name)
            except (msgspec.MsgspecError, ServiceError):
                contents = self._read_again(name)
                self._index.mark(name)  # for whoever may change the place next
            if contents is not None and there[self.path(name)] == contents.size:
                self._index.know(name, contents)

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

    def mend(self) -> list[str]:
        """Write the tables anew that were found damaged, from their packs; returns which. Only while the place is held.

        One whose pack is damaged too, or gone, stays as it is.
        """
        mended = []
        for name in self._index.marked():
            with contextlib.suppress(HearthError):
                if (contents := self._read_again(name)) is not None:
                    self._place.put(self.table(name), self._seal.close(msgspec.msgpack.encode(contents)))
                    self._index.know(name, contents)
                    mended.append(self.table(name))
            if name not in self.names or self.table(name) in mended:
                self._index.unmark(name)
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
        `flush`."""
        self.add_all([(cid, data)], used)

    def add_all(self, blocks: "Sequence[tuple[Cid, bytes | memoryview[int]]]", used: set[str]) -> None:
        """As `add`, of several, with one look into the index."""
        self._just.clear()
        there = self._index.packs_of([cid for cid, _ in blocks])
        for cid, data in blocks:
            if cid in self._waiting:
                self._use(self._waiting[cid], used)
            elif (pack := there.get(cid.binary) or self._just.get(cid)) is not None:
                used.add(pack)
            else:
                self._add(cid, data, used)

    def _add(self, cid: Cid, data: "bytes | memoryview[int]", used: set[str]) -> None:
        if self._filling is None:
            while len(self._writing) >= _UNDER_WAY:
                self._written()
            self._filling = Filling(self._rooms)
            self._writing.append(_Writing(self._filling, self._thread.submit(self._put, self._filling)))
        self._use(None, used)
        self._filling.add(cid, data)
        self._waiting[cid] = None
        if self._filling.size >= PACK:
            self.apart()

    def _use(self, pack: str | None, used: set[str]) -> None:
        if pack is not None:
            used.add(pack)
        elif not self._users or self._users[-1] is not used:
            self._users.append(used)

    def apart(self) -> None:
        """Let what comes now be in other packs than what came, so that it can go without it."""
        pack, self._filling = self._filling, None
        if pack is None:
            return
        name = hashlib.sha256(b"".join(cid.binary for cid, _, _ in pack.blocks)).hexdigest()[:40]
        users, self._users = self._users, []
        for used in users:
            used.add(name)
        self._waiting.update((cid, name) for cid, _, _ in pack.blocks)
        pack.close(name)

    def flush(self) -> None:
        """Return when everything that was added is at the place. Raises what writing raised."""
        self.apart()
        while self._writing:
            self._written()

    def _written(self) -> None:
        """Wait for the oldest pack that is not at the place yet."""
        pack, done = self._writing.popleft()
        contents = done.result()
        name = _named(pack)
        self._index.know(name, contents)
        self.written += [self.path(name), self.table(name)]
        for cid, _, _ in pack.blocks:
            self._just[cid] = name
            del self._waiting[cid]

    def _put(self, pack: Filling) -> Contents:
        """First the pack, then its table: what has a table is whole."""
        as_it_lies = ""
        try:
            with contextlib.closing(pack.pieces()) as pieces:
                if self._seal.suffix:
                    closed = self._seal.close(b"".join(map(bytes, pieces)))
                    as_it_lies = self._as_it_lies(closed)
                    size = len(closed)
                    self._place.put(self.path(_named(pack)), closed)
                else:
                    self._place.gather(FOLDER, pieces, lambda: f"{_named(pack)}.car")
                    size = pack.size
        finally:
            pack.let_go()
        contents = Contents(size, [(cid.binary, begin, length) for cid, begin, length in pack.blocks], as_it_lies)
        table = self._seal.close(msgspec.msgpack.encode(contents))
        self._place.put(self.table(_named(pack)), table)
        self.stored += size + len(table)
        return contents

    # ---- reading ----------------------------------------------------------------------------------------------------

    def find(self, cid: Cid) -> Found:
        """Raises ServiceError where the block is in no pack."""
        found = self._index.find(cid)
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
                self._index.mark(name)
                yield self.table(name), reason

    def _bad_table(self, name: str) -> str:
        try:
            contents = self._told(name)
        except msgspec.MsgspecError as fault:
            return f"the pack's table is damaged: {fault}"
        except HearthError as fault:
            return fault.message
        if {*map(tuple, contents.blocks)} != self._index.blocks(name):
            return "the pack's table is damaged: it is not what the pack holds"
        return ""

    def whole(self, name: str) -> bytes:
        """A pack as it lies at the place."""
        return self._place.get(self.path(name))

    def cid(self, name: str) -> str:
        """Of an encrypted pack, as a file."""
        return self._index.cid(name)

    def unpushed(self, node: str, names: Iterable[str]) -> list[str]:
        """Those of `names` that `node` has not been given by this machine."""
        given = self._index.pushed(node)
        return [name for name in names if name not in given]

    def pushed(self, node: str, name: str) -> None:
        self._index.push(node, name)

    # ---- forgetting -------------------------------------------------------------------------------------------------

    def drop(self, names: Iterable[str]) -> None:
        """Delete packs, the table first, so that one that is half deleted is none."""
        for name in names:
            self._index.forget(name)
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


def _continues(batch: list[tuple[Cid, Found]], found: Found) -> bool:
    first, last = batch[0][1], batch[-1][1]
    gap = found.begin - last.begin - last.size
    return found.pack == last.pack and 0 <= gap <= LEAF and found.begin + found.size - first.begin <= _READ_AHEAD


def _named(pack: Filling) -> str:
    assert pack.name is not None, "it is closed"
    return pack.name


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0]
