"""Reads snapshots back: to verify that every byte is there, and to write files as they were."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from server.errors import HearthError, ServiceError
from server.policies.backup import cid as cids
from server.policies.backup import unixfs
from server.policies.backup.cid import Cid
from server.policies.backup.packs import Packs
from server.policies.backup.snapshot import File, Snapshot

Tell = Callable[[str, int], None]
"""Hears which file is read, and how many bytes more were."""


class Damage(msgspec.Struct, frozen=True):
    """One file that cannot be read back: where it stands, and what is wrong."""

    snapshot: str
    path: str
    reason: str


def verify(snapshots: Iterable[Snapshot], packs: Packs, tell: Tell) -> list[Damage]:
    """Read every file of the snapshots and take its sum again, each once however many snapshots have it."""
    found: list[Damage] = []
    sound: dict[str, str] = {}
    bad: dict[str, str] = {}
    told: set[str] = set()
    for snapshot in snapshots:
        tables = packs.bad_tables(name for name in snapshot.packs if name not in told)
        found += [Damage(snapshot.name, path, reason) for path, reason in tables]
        told.update(snapshot.packs)
        if reason := _misfit(snapshot, packs):
            found.append(Damage(snapshot.name, "", reason))
        for file in snapshot.files:
            if file.cid not in bad and sound.get(file.cid) != file.sha256:
                try:
                    for part in content(file, packs):
                        tell(file.path, len(part))
                except HearthError as fault:
                    bad[file.cid] = fault.message
                else:
                    sound[file.cid] = file.sha256
            if file.cid in bad:
                found.append(Damage(snapshot.name, file.path, bad[file.cid]))
    return found


def content(file: File, packs: Packs) -> Iterator[bytes]:
    """The bytes of a file in parts; at the end, its sum is found right. Raises ServiceError where it is not."""
    return checked(file, _leaves(cids.parse(file.cid), packs))


def checked(file: File, parts: Iterable[bytes]) -> Iterator[bytes]:
    """The parts, if they are that file. Raises ServiceError after the last one where they are not."""
    whole = hashlib.sha256()
    size = 0
    for part in parts:
        whole.update(part)
        size += len(part)
        if size > file.size:
            raise ServiceError(f"{file.path} is another file than the snapshot says: it is longer.")
        yield part
    if (size, whole.hexdigest()) != (file.size, file.sha256):
        raise ServiceError(f"{file.path} is another file than the snapshot says: its sum is {whole.hexdigest()}.")


def _leaves(root: Cid, packs: Packs) -> Iterator[bytes]:
    """The leaves in order; neighbours are read together, for the links of one node come one after another."""
    if root.codec == cids.RAW:
        yield packs.read(root)
        return
    try:
        node = unixfs.read(packs.read(root))
    except ValueError as fault:
        raise ServiceError(f"The block {root} is none of a file: {fault}.") from fault
    links = [cid for _, cid in node.links]
    if links and all(cid.codec == cids.RAW for cid in links):
        yield from packs.run(links)
        return
    for cid in links:
        yield from _leaves(cid, packs)


def _misfit(snapshot: Snapshot, packs: Packs) -> str:
    """What is wrong with the folder of all files that the snapshot's CID names; empty where it holds them all."""
    try:
        there = dict(_entries(cids.parse(snapshot.cid), "", packs))
    except (HearthError, ValueError) as fault:
        return str(fault)
    wanted = {file.path: file.cid for file in snapshot.files}
    return "" if there == wanted else "its list and its CID name different files"


def _entries(folder: Cid, path: str, packs: Packs) -> Iterator[tuple[str, str]]:
    node = unixfs.read(packs.read(folder)) if folder.codec == cids.DAG_PB else None
    if node is None or not node.is_directory:
        yield path, str(folder)
        return
    for name, cid in node.links:
        yield from _entries(cid, f"{path}/{name}" if path else name, packs)


# ---- writing --------------------------------------------------------------------------------------------------------


def fitting(snapshot: Snapshot, what: str | None) -> list[File]:
    """The files at or below `what`, a path of the snapshot such as knowledge/handbook; all without it."""
    if what is None:
        return list(snapshot.files)
    wanted = what.strip("/")
    return [file for file in snapshot.files if file.path == wanted or file.path.startswith(f"{wanted}/")]


def write(file: File, target: Path, parts: Iterable[bytes], tell: Tell) -> None:
    """Make `target` that file, whole or not at all, with its time, of its `parts`, which are checked.

    It has its mode, but never runs as whoever owns it: the list of a foreign place could say so.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ServiceError(f"{target.parent} cannot be made: {fault.strerror or fault}") from fault
    half = target.with_name(f".{target.name}.restoring")
    try:
        with open(half, "wb", opener=_for_nobody_else) as out:
            for part in parts:
                out.write(part)
                tell(file.path, len(part))
            out.flush()
            os.fsync(out.fileno())
        half.chmod(file.mode & 0o777)
        os.utime(half, ns=(file.modified, file.modified))
        half.replace(target)
    except OSError as fault:
        raise ServiceError(f"{target} cannot be written: {fault.strerror or fault}") from fault
    finally:
        half.unlink(missing_ok=True)


def _for_nobody_else(path: str, flags: int) -> int:
    """Opened so that nobody else reads it before it has its mode, and no link leads it elsewhere."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def same(file: File, target: Path) -> bool:
    """Whether `target` is that file already, by its sum."""
    if not target.is_file() or target.stat().st_size != file.size:
        return False
    with target.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256
