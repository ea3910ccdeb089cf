"""A snapshot: the list of the files that it holds, with the sum and the CID of each; written last of all."""

import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from server.errors import NotFound, ServiceError
from server.place import Place, is_half
from server.policies.backup import cid as cids
from server.policies.backup.seal import Seal

FOLDER = "snapshots"
_FORMAT = 1
_PACK = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8}")


class File(msgspec.Struct, frozen=True):
    """One file. `path` begins with what it is of: models/NAME, knowledge/NAME, recipe; `source` is where it was.

    `packs` are places in the snapshot's list: those that hold its blocks, which have `total` bytes with their nodes.
    `sha256` is of the whole file.
    """

    path: str
    source: str
    size: int
    mode: int
    modified: int
    """Nanoseconds since 1970, of the machine it was on."""
    sha256: str
    cid: str
    total: int
    packs: tuple[int, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """`cid` is of the folder of all files, `data` the data directory then, `hearth` the version that made it."""

    name: str
    made: datetime
    hearth: str
    data: str
    cid: str
    files: tuple[File, ...]
    packs: tuple[str, ...]
    sealed: tuple[str, ...] = ()
    """Of an encrypted snapshot, the CID of each pack as it lies at the place; empty otherwise."""
    left_out: tuple[str, ...] = ()
    format: int = _FORMAT
    chunker: Literal["size-262144"] = "size-262144"
    layout: Literal["balanced-174, raw leaves"] = "balanced-174, raw leaves"
    encrypted: bool = False

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


_snapshots = msgspec.json.Decoder(Snapshot)


def new_name(made: datetime) -> str:
    """One that sorts by time and that no other snapshot has."""
    return f"{_stamp(made)}-{secrets.token_hex(4)}"


def _stamp(moment: datetime) -> str:
    """To the millisecond, in UTC."""
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z"


def path_of(name: str, seal: Seal) -> str:
    return f"{FOLDER}/{name}.json{seal.suffix}"


def write(snapshot: Snapshot, place: Place, seal: Seal) -> int:
    """Put it at the place, whole; returns its bytes."""
    data = seal.close(msgspec.json.format(msgspec.json.encode(snapshot), indent=1))
    path = path_of(snapshot.name, seal)
    place.put(path, data)
    place.settle([path])
    return len(data)


def names(place: Place, seal: Seal) -> list[str]:
    """Of all snapshots that `seal` opens, oldest first; those of before a change of encryption are left alone."""
    ending = f".json{seal.suffix}"
    found = (path.rpartition("/")[2] for path in place.names(FOLDER))
    return sorted(name.removesuffix(ending) for name in found if name.endswith(ending))


def unfinished(place: Place) -> list[str]:
    """Files that a run which was killed has left half written."""
    return [path for path in place.names(FOLDER) if is_half(path)]


def read(name: str, place: Place, seal: Seal) -> Snapshot:
    """Raises NotFound, and ServiceError for one that is damaged, for another key or of a newer Hearth."""
    path = path_of(name, seal)
    try:
        data = place.get(path)
    except NotFound:
        raise NotFound(f"There is no snapshot {name} in {place}{_other_key(name, place, seal)}.") from None
    return decode(seal.open(data, path), f"{path} in {place}")


def decode(data: bytes, title: str) -> Snapshot:
    """A snapshot's list as it is written. Raises ServiceError for what is none."""
    try:
        found = _snapshots.decode(data)
    except msgspec.MsgspecError as fault:
        raise ServiceError(f"{title} is damaged, or of a newer Hearth: {fault}") from fault
    if found.format != _FORMAT:
        raise ServiceError(f"{title} has the format {found.format}, which a newer Hearth reads.")
    if reason := _unsound(found):
        raise ServiceError(f"{title} was not written by Hearth: {reason}.")
    return found


def _unsound(snapshot: Snapshot) -> str:
    """What in a list would lead out of the folder that is restored to, or to nothing; empty where it is sound."""
    for file in snapshot.files:
        if "\0" in file.path or any(part in ("", ".", "..") for part in file.path.split("/")):
            return f"{file.path!r} is no path within a folder"
        if any(not 0 <= number < len(snapshot.packs) for number in file.packs):
            return f"{file.path!r} is in a pack that it does not name"
    if odd := next((name for name in snapshot.packs if not _PACK.fullmatch(name)), None):
        return f"{odd!r} is no name of a pack"
    if snapshot.encrypted and len(snapshot.sealed) != len(snapshot.packs):
        return "it does not say the CID of every pack"
    try:
        for text in (snapshot.cid, *snapshot.sealed, *(file.cid for file in snapshot.files)):
            cids.parse(text)
    except ValueError as fault:
        return str(fault)
    return ""


def all_of(place: Place, seal: Seal) -> Iterator[Snapshot]:
    """Oldest first. Raises as `read` does."""
    return (read(name, place, seal) for name in names(place, seal))


def chosen(wanted: str | None, place: Place, seal: Seal) -> Snapshot:
    """The newest snapshot, the one of this name, or the newest that is not younger than this time.

    Raises NotFound where there is none, with the names there are.
    """
    there = names(place, seal)
    if wanted is None:
        fit = there
    elif wanted in there or _NAME.fullmatch(wanted):
        fit = [wanted] if wanted in there else []
    else:
        until = _stamp(_moment(wanted))
        fit = [name for name in there if name[: len(until)] <= until]
    if not fit:
        told = ", ".join(there[-8:]) or "none"
        raise NotFound(f"{place} has no snapshot {'' if wanted is None else f'of {wanted} or before'}; it has {told}.")
    return read(fit[-1], place, seal)


def _moment(text: str) -> datetime:
    """A time as ISO 8601 writes it; a day alone means its end, and what names no zone this machine's."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise NotFound(f"{text!r} is neither a snapshot nor a time such as 2027-01-31T03:00.") from None
    if len(text) == len("2027-01-31"):
        found = found.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return found.astimezone(UTC)


def _other_key(name: str, place: Place, seal: Seal) -> str:
    """What to say where it is there in the other form."""
    there = [path for path in place.names(FOLDER) if f"/{name}." in path]
    if not there:
        return ""
    return ": it is encrypted, and no key is declared" if there[0].endswith(".age") else ": it is not encrypted"
