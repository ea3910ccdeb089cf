"""Makes a snapshot: reads the files, keeps what is not kept yet, and writes the list of them last.

A file that has the place, the size and the time that it had in the last snapshot is not read again.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace

from server.errors import ServiceError
from server.place import Place
from server.policies.backup import cid as cids
from server.policies.backup import snapshot as snapshots
from server.policies.backup import unixfs
from server.policies.backup.cid import Cid
from server.policies.backup.packs import Packs
from server.policies.backup.seal import Seal
from server.policies.backup.segments import Reader
from server.policies.backup.snapshot import File, Snapshot
from server.policies.backup.unixfs import LEAF, Link, Tree

_LARGE = 4 * LEAF
"""Bytes from which a file has packs of its own, which go with it."""

_TRIES = 5
"""How often the files of a table are listed again because one of them went, before it is a fault."""


class Moved(Exception):
    """A file changed or went while it was read."""


@dataclass(frozen=True)
class Source:
    """One file to keep: what it is called in the snapshot, where it is read, and where it belongs if elsewhere.

    `away` is the SHA-256 of one that is in cold storage, `told` where: it is kept where the last snapshot has it, and
    is not read. `make` makes one that is named after what is in it, where the last snapshot does not have it; `told` is
    then what it would hold. It raises ServiceError, whereupon it is left out.
    """

    path: str
    file: Path
    home: Path | None = None
    away: str | None = None
    told: str = ""
    make: Callable[[Path], None] | None = None

    @property
    def place(self) -> str:
        return str(self.home or self.file)


@dataclass(frozen=True)
class Group:
    """Files that belong together. `living` says that others write there: then what moved is listed again."""

    name: str
    files: Callable[[], Sequence[Source]]
    living: bool = False


@dataclass
class Progress:
    """How far it is: what of the group is done, in files and bytes, and how many bytes were read in all."""

    group: str = ""
    done: int = 0
    of: int = 0
    read: int = 0


@dataclass(frozen=True)
class Made:
    """A snapshot, with the bytes that were read for it, and those that the place has more."""

    snapshot: Snapshot
    read: int
    stored: int


class Maker:
    """Makes one snapshot in a place that is held by the caller; `tell` hears of every segment."""

    def __init__(self, place: Place, seal: Seal, packs: Packs, tell: Callable[[Progress], None]) -> None:
        self._place = place
        self._seal = seal
        self._packs = packs
        self._tell = tell
        self._progress = Progress()
        self._before: dict[str, tuple[File, set[str]]] = {}
        self._left_out: list[str] = []
        self._reader = Reader()

    def make(self, groups: Iterable[Group], data: str, hearth: str, left_out: tuple[str, ...]) -> Made:
        """Raises ServiceError for a file that cannot be read or does not stay as it is; then nothing has changed."""
        self._before = self._last()
        kept: list[tuple[File, set[str]]] = []
        try:
            for group in groups:
                kept += self._group(group)
        finally:
            self._reader.close()
        of_folders: set[str] = set()
        root = self._folders(
            {file.path: Link(cids.parse(file.cid), file.size, file.total) for file, _ in kept}, of_folders
        )
        self._packs.flush()
        self._place.settle(self._packs.written)
        order = sorted(of_folders.union(*(used for _, used in kept)))
        numbers = {name: number for number, name in enumerate(order)}
        now = datetime.now(UTC)
        snapshot = Snapshot(
            name=snapshots.new_name(now),
            made=now,
            hearth=hearth,
            data=data,
            cid=str(root.cid),
            files=tuple(replace(file, packs=tuple(sorted(numbers[name] for name in used))) for file, used in kept),
            packs=tuple(order),
            sealed=tuple(self._packs.cid(name) for name in order) if self._seal.suffix else (),
            left_out=(*left_out, *self._left_out),
            encrypted=bool(self._seal.suffix),
        )
        stored = snapshots.write(snapshot, self._place, self._seal)
        return Made(snapshot, self._progress.read, self._packs.stored + stored)

    def _last(self) -> dict[str, tuple[File, set[str]]]:
        """The files of the last snapshot of which every pack is still there, by where they were."""
        names = snapshots.names(self._place, self._seal)
        if not names:
            return {}
        last = snapshots.read(names[-1], self._place, self._seal)
        there = self._packs.names
        found = ((file, {last.packs[number] for number in file.packs}) for file in last.files)
        return {file.source: (file, used) for file, used in found if used <= there}

    def _group(self, group: Group) -> list[tuple[File, set[str]]]:
        for last in range(1, _TRIES + 1):
            try:
                sources = group.files()
                self._progress.group, self._progress.done = group.name, 0
                here = [source for source in sources if source.away is None and source.make is None]
                self._progress.of = sum(source.file.stat().st_size for source in here)
                elsewhere = (self._known(source) for source in sources if source.away is not None)
                made = (self._made(source) for source in sources if source.make is not None)
                return [*map(self._kept, here), *(each for each in (*elsewhere, *made) if each is not None)]
            except (Moved, FileNotFoundError) as fault:
                if not group.living or last == _TRIES:
                    raise ServiceError(f"{group.name} changed while it was read: {fault}") from fault
            except OSError as fault:
                raise ServiceError(f"{group.name} cannot be read: {fault}") from fault
        raise AssertionError("the last try returns or raises")

    def _known(self, source: Source) -> tuple[File, set[str]] | None:
        """One in cold storage, where the last snapshot has it."""
        known = self._before.get(source.place)
        if known is not None and known[0].sha256 == source.away:
            return replace(known[0], path=source.path), set(known[1])
        self._left_out.append(f"{source.path}: {source.told}, and no snapshot has it")
        return None

    def _made(self, source: Source) -> tuple[File, set[str]] | None:
        """One that is made for this, unless the last snapshot has it."""
        known = self._before.get(source.place)
        if known is not None:
            return replace(known[0], path=source.path), set(known[1])
        assert source.make is not None, "else it is there"
        self._tell(self._progress)
        try:
            source.make(source.file)
        except ServiceError as fault:
            self._left_out.append(f"{source.path.rpartition('/')[0]}: {source.told} are left out: {fault.message}")
            return None
        try:
            return self._kept(source)
        finally:
            source.file.unlink()

    def _kept(self, source: Source) -> tuple[File, set[str]]:
        status = source.file.stat()
        known = self._before.get(source.place)
        if known is not None and (known[0].size, known[0].modified) == (status.st_size, status.st_mtime_ns):
            self._progress.done += status.st_size
            return replace(known[0], path=source.path, mode=status.st_mode & 0o7777), set(known[1])
        used: set[str] = set()
        large = status.st_size >= _LARGE
        if large:
            self._packs.apart()
        link, digest = self._read(source.file, used)
        if large:
            self._packs.apart()
        after = source.file.stat()
        if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns) or link.size != status.st_size:
            raise Moved(f"{source.file} was written to")
        file = File(
            path=source.path,
            source=source.place,
            size=link.size,
            mode=status.st_mode & 0o7777,
            modified=status.st_mtime_ns,
            sha256=digest,
            cid=str(link.cid),
            total=link.total,
            packs=(),
        )
        return file, used

    def _read(self, path: Path, used: set[str]) -> tuple[Link, str]:
        """The file's blocks go to the packs. Their sums are this thread's, for a hand-over costs more than a block; the
        sum of the whole is the reader's."""
        whole = hashlib.sha256()
        tree = Tree(lambda cid, block: self._packs.add(cid, block, used))
        with closing(self._reader.segments(path, whole)) as segments:
            for segment in segments:
                if len(segment) or not tree.leaves:
                    leaves = list(_leaves(segment))
                    self._packs.add_all(leaves, used)
                    for cid, leaf in leaves:
                        tree.leaf(cid, len(leaf))
                self._progress.done += len(segment)
                self._progress.read += len(segment)
                self._tell(self._progress)
        return tree.root(), whole.hexdigest()

    def _folders(self, links: dict[str, Link], used: set[str]) -> Link:
        """The folder of all files, as nodes; deepest first."""
        entries: dict[str, dict[str, Link]] = {"": {}}
        for path, link in links.items():
            folder, _, name = path.rpartition("/")
            entries.setdefault(folder, {})[name] = link
            while folder:
                folder = folder.rpartition("/")[0]
                entries.setdefault(folder, {})
        for folder in sorted(entries, key=lambda each: -each.count("/") - bool(each)):
            made = unixfs.directory(entries[folder], lambda cid, block: self._packs.add(cid, block, used))
            if not folder:
                return made
            above, _, name = folder.rpartition("/")
            entries[above][name] = made
        raise AssertionError("the root is the last folder")


def _leaves(segment: "memoryview[int]") -> Iterator[tuple[Cid, "memoryview[int]"]]:
    """Its leaves with their names; an empty one for an empty file."""
    for at in range(0, max(len(segment), 1), LEAF):
        part = segment[at : at + LEAF]
        yield cids.of(cids.RAW, part), part
