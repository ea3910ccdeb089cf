"""Puts files of a snapshot back where they were. What they replace is kept beside, never deleted."""

import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from server.errors import InvalidValue, ServiceError
from server.policies.backup import cold_documents
from server.policies.backup.job import Backup
from server.policies.backup.snapshot import File, Snapshot
from server.policies.backup.sources import STATE

_FOLDERS = ("knowledge", "vector_stores", "files")
"""What is put back as whole folders: a file that the snapshot lacks may not stay among those that it has."""

_SCRATCH = ".restoring-"


def in_place(backup: Backup, snapshot: Snapshot, files: list[File], data: Path) -> list[str]:
    """Restore `files` to where they were; returns sentences on what was done.

    Only while no server uses `data`. Every new file lies whole beside its place before the first one is replaced.
    Raises InvalidValue for parts that only make sense together.
    """
    folders, single, state = _sorted(files)
    _refuse_parts(folders, _sorted(snapshot.files)[0])
    alone = [unit for unit in folders if unit.partition("/")[0] != "knowledge"]
    if alone and state is None:
        raise InvalidValue(
            f"{alone[0]} is put back together with state.db: restore everything, or use --to.", param="what"
        )
    kept = data / "replaced" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    told = []
    for left in _made(data).glob(f"{_SCRATCH}*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_SCRATCH, dir=data) as scratch:
        new = Path(scratch)
        backup.write([file for unit in folders.values() for file in unit], lambda file: new / file.path)
        if state is not None:
            backup.write([state], lambda file: new / file.path)
        back = cold_documents.bring_back(new)
        cold_documents.forget(back, new / STATE)
        told += [f"{len(each.documents)} cold documents of {each.collection} lie here again" for each in back]
        written, there = backup.write(single, lambda file: Path(file.source))
        if single:
            told.append(f"{written} files written where they were, {there} were there already")
        if state is None and folders:
            _merge(backup, snapshot, [unit.partition("/")[2] for unit in folders], data, new)
            cold_documents.forget(back, data / STATE)
        for unit in folders:
            _swap(new / unit, data / unit, kept / unit)
            told.append(f"{unit} is as it was; what it replaced is in {kept / unit}")
        if state is not None:
            for name in (STATE, f"{STATE}-wal", f"{STATE}-shm"):
                _away(data / name, kept / name)
            (new / STATE).replace(data / STATE)
            told.append(f"{STATE} is as it was; what it replaced is in {kept}")
    return told


def _refuse_parts(chosen: Mapping[str, list[File]], whole: Mapping[str, list[File]]) -> None:
    """What is put back as a whole folder would lack the rest."""
    for unit, files in chosen.items():
        if len(files) < len(whole[unit]):
            raise InvalidValue(
                f"This is only a part of {unit}, which is put back whole: say --what {unit}, or use --to.", param="what"
            )


def _sorted(files: Iterable[File]) -> tuple[Mapping[str, list[File]], list[File], File | None]:
    """Folders to be put back whole, by their paths in the data directory; single files; and the database."""
    folders: dict[str, list[File]] = defaultdict(list)
    single = []
    state = None
    for file in files:
        kind, _, rest = file.path.partition("/")
        if file.path == STATE:
            state = file
        elif kind == "files":
            folders[kind].append(file)
        elif kind in _FOLDERS:
            folders[f"{kind}/{rest.partition('/')[0]}"].append(file)
        else:
            single.append(file)
    return folders, single, state


def _swap(new: Path, place: Path, kept: Path) -> None:
    _away(place, kept)
    place.parent.mkdir(parents=True, exist_ok=True)
    new.replace(place)


def _away(place: Path, kept: Path) -> None:
    if place.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        place.replace(kept)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ServiceError(f"{folder} cannot be made: {fault.strerror}") from fault
    return folder


def _merge(backup: Backup, snapshot: Snapshot, collections: list[str], data: Path, scratch: Path) -> None:
    """Let the database say of these collections what it said then: how far their streams were read, above all, so
    that messages which came later are read again."""
    old = next((file for file in snapshot.files if file.path == STATE), None)
    if old is None or not (data / STATE).exists():
        return
    backup.write([old], lambda file: scratch / file.path)
    with closing(sqlite3.connect(data / STATE, isolation_level=None)) as database:
        database.execute("ATTACH ? AS old", (str(scratch / STATE),))
        database.execute("BEGIN IMMEDIATE")
        for table in _tables(database, "main"):
            there = _columns(database, "main", table)
            if not table.startswith("knowledge_") or "collection" not in there:
                continue
            shared = [column for column in _columns(database, "old", table) if column in there and column != "id"]
            names = ", ".join(shared)
            for collection in collections:
                database.execute(f"DELETE FROM main.{table} WHERE collection = ?", (collection,))
                if shared:
                    database.execute(
                        f"INSERT INTO main.{table} ({names}) SELECT {names} FROM old.{table} WHERE collection = ?",
                        (collection,),
                    )
        database.execute("COMMIT")


def _tables(database: sqlite3.Connection, schema: str) -> list[str]:
    return [name for (name,) in database.execute(f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table'")]


def _columns(database: sqlite3.Connection, schema: str, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA {schema}.table_info({table})")]
