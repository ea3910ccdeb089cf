"""The work on a backup, from beginning to end: make a snapshot, look through them all, write one back. It blocks, and
computes; so it runs in a process of its own, or in a command's.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from config import Recipe
from config.bucket import Bucket
from config.policy import BackupSpec, Keep
from server.errors import InvalidValue
from server.place import Place
from server.policies.backup import restoring, retention
from server.policies.backup import snapshot as snapshots
from server.policies.backup.ipfs import Node
from server.policies.backup.making import Maker, Progress
from server.policies.backup.packs import Packs
from server.policies.backup.restoring import Damage
from server.policies.backup.seal import seal_of
from server.policies.backup.snapshot import File, Snapshot
from server.policies.backup.sources import groups
from server.policies.report import Report, Tell

_MB = 10**6


class Backup:
    """One backup, at its place. `cache` is a folder for what can be made anew: where each block is."""

    def __init__(self, where: Path | Bucket, key: str | None, cache: Path, tell: Tell) -> None:
        self._tell = tell
        self._where = where
        self._cache = cache
        self._seal = seal_of(key)
        self._place = Place(where)

    @classmethod
    def declared(cls, recipe: Recipe, tell: Tell) -> "Backup":
        """The one that a recipe declares. Raises InvalidValue where it declares none."""
        spec = _spec(recipe)
        key = None if spec.key is None else spec.key.get_secret_value()
        return cls(spec.to, key, recipe.server.data / "cache", tell)

    @property
    def place(self) -> str:
        return str(self._place)

    def make(self, recipe: Recipe) -> Report:
        """Make a snapshot of what `recipe` says, and let go of those that are outdated. Raises Conflict while another
        run does."""
        spec = _spec(recipe)
        with self._place.held(), self._packs() as packs:
            mended = packs.mend()
            with groups(recipe, spec.what, with_cold=spec.cold == "include") as (found, left_out):
                maker = Maker(self._place, self._seal, packs, self._progress)
                made = maker.make(found, str(recipe.server.data), version("hearth"), left_out)
            details = [f"CID {made.snapshot.cid}", *(f"{name} was damaged and is written anew" for name in mended)]
            if spec.ipfs is not None:
                details.append(self._publish(spec.ipfs, made.snapshot, packs))
            gone, freed = self._forget(packs, spec.keep, spec.ipfs)
        snapshot = made.snapshot
        summary = (
            f"{snapshot.name}: {len(snapshot.files)} files of {snapshot.size / _MB:.1f} MB, of which "
            f"{made.read / _MB:.1f} MB were read and {made.stored / _MB:.1f} MB stored"
        )
        if gone:
            summary += f"; {len(gone)} older snapshots went, which freed {freed} packs"
        figures = {
            "files": len(snapshot.files),
            "bytes": snapshot.size,
            "bytes_read": made.read,
            "bytes_stored": made.stored,
            "snapshots_removed": len(gone),
        }
        return Report(summary, figures, (*details, *(f"left out: {each}" for each in snapshot.left_out)))

    def snapshots(self) -> list[Snapshot]:
        """Oldest first."""
        return list(snapshots.all_of(self._place, self._seal))

    def verify(self) -> tuple[int, list[Damage]]:
        """Read every byte of every snapshot; returns how many snapshots there are, and what is damaged."""
        with self._packs() as packs:
            found = self.snapshots()
            return len(found), restoring.verify(found, packs, self._file)

    def chosen(self, wanted: str | None, what: str | None) -> tuple[Snapshot, list[File]]:
        """A snapshot by name or time, the newest without, and its files below `what`. Raises NotFound."""
        snapshot = snapshots.chosen(wanted, self._place, self._seal)
        files = restoring.fitting(snapshot, what)
        if not files:
            there = sorted({"/".join(file.path.split("/")[:2]) for file in snapshot.files})
            raise InvalidValue(f"{snapshot.name} has nothing at {what}; it has {', '.join(there)}.", param="what")
        return snapshot, files

    def write(self, files: list[File], target: Callable[[File], Path]) -> tuple[int, int]:
        """Make the files what they were; returns how many were written, and how many were there already."""
        written = 0
        with self._packs() as packs:
            for file in files:
                path = target(file)
                if not restoring.same(file, path):
                    restoring.write(file, path, restoring.content(file, packs), self._file)
                    written += 1
        return written, len(files) - written

    # ---- parts ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _packs(self) -> Iterator[Packs]:
        where = self._where
        named = f"{where.endpoint or ''}|{where.url}" if isinstance(where, Bucket) else str(where)
        digest = hashlib.sha256(f"{named}|{self._seal.suffix}".encode()).hexdigest()[:16]
        with Packs(self._place, self._seal, self._cache / f"backup-{digest}.db") as packs:
            yield packs

    def _publish(self, url: str, snapshot: Snapshot, packs: Packs) -> str:
        """Let a node import and pin the snapshot, which lies at the place already; a sentence on it."""
        with Node(url) as node:
            self._tell(f"IPFS: {url} imports what it has not")
            if snapshot.encrypted:
                count = node.keep_files(snapshot, packs)
                return f"{count} encrypted packs imported and all {len(snapshot.packs)} pinned by {url}"
            count = node.keep_folder(snapshot, packs)
            return f"{count} packs imported and the CID pinned by {url}"

    def _forget(self, packs: Packs, keep: Keep, ipfs: str | None) -> tuple[list[str], int]:
        """Remove what the recipe does not keep: snapshots first, so that none names a pack that is gone."""
        there = self.snapshots()
        places = retention.outdated([each.made for each in there], keep.count, keep.age, datetime.now(UTC))
        gone = [there[place].name for place in places]
        self._place.delete([snapshots.path_of(name, self._seal) for name in gone])
        rest = [each for place, each in enumerate(there) if place not in places]
        unused = retention.unused(packs.names, rest)
        if ipfs is not None:
            with Node(ipfs) as node:
                node.forget([there[place] for place in places], rest)
        packs.drop(unused)
        self._place.delete(
            [*packs.unfinished({pack for each in rest for pack in each.packs}), *snapshots.unfinished(self._place)]
        )
        return gone, len(unused)

    def _progress(self, progress: Progress) -> None:
        share = f"{100 * progress.done // progress.of} %" if progress.of else "done"
        self._tell(f"{progress.group}: {share}, {progress.read / _MB:.0f} MB read")

    def _file(self, path: str, size: int) -> None:
        self._tell(path)


def _spec(recipe: Recipe) -> BackupSpec:
    spec = recipe.policies.backup
    if spec is None:
        raise InvalidValue(f"{recipe.path.name} declares no policies.backup.", param="policies.backup")
    return spec
