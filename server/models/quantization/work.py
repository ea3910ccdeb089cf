"""The folder of a run that may be cut: one run at a time, files that are on the disk when they are said to be, and what
tells that a later run is of the same plan."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from server.models.quantization.fault import QuantizeError

_READ = 1 << 22


@contextlib.contextmanager
def alone(work: Path) -> Iterator[None]:
    """The work folder, for one run at a time."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise QuantizeError(f"{work}: another run is writing this file") from None
        yield


def sha256(file: Path, start: int = 0, count: int | None = None) -> str:
    """SHA-256 of `count` bytes from `start` on; None is all."""
    taken = hashlib.sha256()
    with file.open("rb") as stream:
        stream.seek(start)
        left = file.stat().st_size - start if count is None else count
        while left > 0 and (piece := stream.read(min(_READ, left))):
            taken.update(piece)
            left -= len(piece)
    return taken.hexdigest()


def sync(path: Path) -> None:
    at = os.open(path, os.O_RDONLY)
    try:
        os.fsync(at)
    finally:
        os.close(at)


def digest(values: object) -> str:
    """Of what JSON can say; equal for equal plans."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
