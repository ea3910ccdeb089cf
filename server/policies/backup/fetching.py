"""Brings a snapshot back from IPFS: its list of files alone, and any gateway, are enough."""

from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from server.place import Place
from server.policies.backup import car, restoring
from server.policies.backup import packs as pack_room
from server.policies.backup import snapshot as snapshots
from server.policies.backup.index import Contents
from server.policies.backup.ipfs import Gateway
from server.policies.backup.packs import Packs
from server.policies.backup.restoring import Tell
from server.policies.backup.seal import Plain, Seal
from server.policies.backup.snapshot import File, Snapshot


def listed(data: bytes, title: str, seal: Seal) -> Snapshot:
    """The snapshot whose list is in `data`, as it lies at the place. Raises ServiceError for what is none."""
    return snapshots.decode(seal.open(data, title), title)


def fetch(
    snapshot: Snapshot, files: Iterable[File], gateway: Gateway, seal: Seal, target: Callable[[File], Path], tell: Tell
) -> tuple[int, int]:
    """Make the files what they were; returns how many were written, and how many were there already.

    What the gateway gives is found right, block by block or as a whole, before a file gets its name.
    """
    missing = [file for file in files if not restoring.same(file, target(file))]
    if snapshot.encrypted:
        _unsealed(snapshot, missing, gateway, seal, target, tell)
    else:
        for file in missing:
            restoring.write(file, target(file), restoring.checked(file, gateway.file(file.cid)), tell)
    return len(missing), len(list(files)) - len(missing)


def _unsealed(
    snapshot: Snapshot, files: list[File], gateway: Gateway, seal: Seal, target: Callable[[File], Path], tell: Tell
) -> None:
    """By way of a folder that holds the packs decrypted, as long as it takes."""
    with TemporaryDirectory(prefix="hearth-fetch-") as folder:
        place = Place(Path(folder))
        for number in sorted({number for file in files for number in file.packs}):
            name = snapshot.packs[number]
            data = seal.open(b"".join(gateway.file(snapshot.sealed[number])), f"the pack {name}")
            blocks = [(cid.binary, begin, len(block)) for cid, begin, block in car.blocks(memoryview(data))]
            place.put(f"{pack_room.FOLDER}/{name}.car", data)
            place.put(f"{pack_room.FOLDER}/{name}.idx", msgspec.msgpack.encode(Contents(len(data), blocks, "")))
            tell(f"pack {name}", len(data))
        with Packs(place, Plain(), Path(folder) / "index.db") as packs:
            for file in files:
                restoring.write(file, target(file), restoring.content(file, packs), tell)
