"""Backups in processes that are killed before one call each that changes the place, and what is left then.

As a program it kills at every such call: python -m tests.policies.killed_backups RECIPE SNAPSHOT FOLDER
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config import load
from server import place
from server.policies.backup import packs
from server.policies.backup.job import Backup
from tests.policies.forking import ended, forked

CALLS = ((place.Place, "put"), (place.Place, "settle"), (place.Place, "delete"), (place, "_to_disk"), (Path, "replace"))
"""What changes the place; the last two in the middle of a file."""
_MB = 2**20


def deadly(at: int) -> Callable[[], int]:
    """Have the process killed before its call number `at`; returns what tells how many there were."""
    count = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            nonlocal count
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return call(*given)

        return counted

    for room, name in CALLS:
        setattr(room, name, wrapped(getattr(room, name)))
    return lambda: count


def _backup(recipe: Path) -> Backup:
    return Backup.declared(load(recipe), lambda sentence: None)


def _live(recipe: Path, at: int) -> None:
    (recipe.parent / "weights" / "one.gguf").write_bytes(os.urandom(_MB))
    calls = deadly(at)
    _backup(recipe).make(load(recipe))
    print(f"{calls()} points", flush=True)


def _look(recipe: Path, at: int, old: str, kept: Path) -> None:
    one, out = _backup(recipe), recipe.parent / "found"
    told = [f"{each.snapshot}: {each.path}: {each.reason}" for each in one.verify()[1]]
    there = one.snapshots()
    told += [] if there else ["no snapshot is left"]
    for snapshot in there:
        one.write(list(snapshot.files), lambda file: out / file.path)
        if snapshot.name == old and _content(out) != _content(kept):
            told.append(f"{old} restores otherwise")
        shutil.rmtree(out)
    print(f"killed at {at}: {'; '.join(told) or 'nothing lost, nothing damaged'}", flush=True)


def _content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def main(recipe: Path, old: str, kept: Path) -> None:
    """`kept` is what the snapshot `old` holds. The next run works on what the one before it left."""
    at, code = 0, -signal.SIGKILL
    while code:
        code = ended(forked(lambda at=at: _live(recipe, at)))  # type: ignore[misc]
        assert code in (0, -signal.SIGKILL), code
        assert ended(forked(lambda at=at: _look(recipe, at, old, kept))) == 0  # type: ignore[misc]
        at += 1


if __name__ == "__main__":
    packs.PACK = 600_000  # so that there are several
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
