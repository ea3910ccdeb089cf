"""Weights that move to cold storage and come back, in processes that are killed at one call each.

As a program it kills at every call that changes a disk, and says what was left: python -m tests.policies.cold_weights
FOLDER
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import obstore

from config.bucket import Bucket
from config.source import cold_record
from server.models import cold_weights
from server.models.cold_weights import Cold
from server.policies.report import Report
from server.policies.tiering.weights import Weights, Work, move
from tests.policies.forking import ended, forked

CALLS = ((os, "replace"), (os, "unlink"), (os, "fsync"), (obstore, "delete"))
"""What changes a disk, or makes a change last."""


def silent(sentence: str) -> None:
    """Hears how far it is."""


def filled(folder: Path, size: int = 50_000) -> list[Weights]:
    """A file in two parts and a folder, of random bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        (folder / f"big-0000{number}-of-00002.gguf").write_bytes(os.urandom(size))
    (folder / "small").mkdir()
    (folder / "small" / "config.json").write_text("{}")
    for name in ("a", "b"):
        (folder / "small" / f"{name}.safetensors").write_bytes(os.urandom(size))
    return found(folder)


def found(folder: Path) -> list[Weights]:
    return [
        Weights(folder / "big-00001-of-00002.gguf", ("big",), {"a mark": b"a card"}),
        Weights(folder / "small", ("small",)),
    ]


def sums(weights: list[Weights]) -> dict[str, str]:
    """Of every file that is here."""
    files = [file for each in weights for file in cold_weights.files_of(each.path) if file.exists()]
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}


def run(place: Path | Bucket, known: list[Weights], going: list[Weights]) -> Report:
    return move(Work(place, tuple(known), tuple(going)), silent)


def back(place: Path | Bucket, weights: list[Weights]) -> None:
    for each in weights:
        cold_weights.bring(each.path, Cold(place), silent)


# ---- killed ---------------------------------------------------------------------------------------------------------


def life(folder: Path) -> None:
    """There and back, and what is left there tidied away."""
    known = found(folder / "weights")
    run(folder / "cold", known, known)
    back(folder / "cold", known)
    run(folder / "cold", known, [])


def faults(folder: Path, wanted: dict[str, str], brought_first: bool) -> list[str]:
    """What is wrong after a kill: when the files are asked for at once, or after the next run."""
    known = found(folder / "weights")
    told = []
    if not brought_first:
        run(folder / "cold", known, [])
    back(folder / "cold", known)
    if sums(known) != wanted:
        told.append(f"came back as {sums(known)}")
    run(folder / "cold", known, [])
    if left := [cold_record(each.path).name for each in known if cold_record(each.path).exists()]:
        told.append(f"records are left: {left}")
    if copies := sorted(file.name for file in (folder / "cold").glob("weights/*")):
        told.append(f"copies are left: {copies}")
    report = run(folder / "cold", known, known)
    if report.figures["weights_out"] != len(known) or sums(known):
        told.append(f"the next move did {report.summary}")
    back(folder / "cold", known)
    if sums(known) != wanted:
        told.append(f"came back again as {sums(known)}")
    return told


def deadly(at: int) -> Callable[[], int]:
    """Have the process killed before its call number `at`; returns what tells how many there were."""
    count = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return call(*given, **named)

        return counted

    for room, name in CALLS:
        setattr(room, name, wrapped(getattr(room, name)))
    return lambda: count


def _live(folder: Path, at: int) -> None:
    calls = deadly(at)
    life(folder)
    print(f"{calls()} points", flush=True)


def _look(folder: Path, at: int, wanted: dict[str, str]) -> None:
    told = faults(folder, wanted, brought_first=at % 2 == 0)
    print(f"killed at {at}: {'; '.join(told) or 'nothing lost, nothing left'}", flush=True)


def main(root: Path) -> None:
    wanted = sums(filled(root / "begun"))
    at, code = 0, -signal.SIGKILL
    while code:
        folder = root / str(at)
        shutil.copytree(root / "begun", folder / "weights")
        code = ended(forked(lambda folder=folder, at=at: _live(folder, at)))  # type: ignore[misc]
        assert code in (0, -signal.SIGKILL), code
        assert ended(forked(lambda folder=folder, at=at: _look(folder, at, wanted))) == 0  # type: ignore[misc]
        shutil.rmtree(folder)
        at += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
