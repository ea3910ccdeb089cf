"""Backups: their speed beside SHA-256 alone over the same bytes, a second run, memory, and kills at random moments."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from bench import killed
from bench.table import CannotRun, Figure, report

_MB = 2**20
_FILES = 4
_ROUNDS = 5
_CHUNK = 16 * _MB
_KILLED = {"backup": "what verify found, or a snapshot lost", "restore": "half files, or bytes that were never kept"}

_ONE = """
import json, sys, time
from pathlib import Path
from config import load
from server.place import Place
from server.policies.backup.job import Backup
waited = 0.0
def timed(room, name):
    real = getattr(room, name)
    def call(*given):
        global waited
        began = time.perf_counter()
        try:
            return real(*given)
        finally:
            waited += time.perf_counter() - began
    setattr(room, name, call)
timed(Place, "settle")
recipe = load(Path(sys.argv[1]))
began = time.perf_counter()
done = Backup.declared(recipe, lambda sentence: None).make(recipe)
took = time.perf_counter() - began
memory = int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
print(json.dumps([took, waited, dict(done.figures), memory]))
"""


def bench(megabytes: int, kills: int) -> int:
    """Print the figures of `megabytes` of weights, and what so many kills of backups and of restores leave behind."""
    with TemporaryDirectory(prefix="hearth-bench-") as place:
        folder = Path(place)
        recipe = _recipe(folder, megabytes)
        figures = _speed(folder, recipe)
        figures += killed.figures(folder, _KILLED, kills) if kills else []
    return report(figures)


def _recipe(folder: Path, megabytes: int) -> Path:
    """A recipe with models of random bytes, which nothing can be stored twice of."""
    (folder / "weights").mkdir()
    noise = np.random.default_rng(0)
    size = megabytes * _MB // _FILES
    for number in range(_FILES):
        with (folder / "weights" / f"{number}.gguf").open("wb") as file:
            for at in range(0, size, _CHUNK):
                file.write(noise.bytes(min(_CHUNK, size - at)))
    models = "".join(f"  m{n}: {{engine: llamacpp, source: ./weights/{n}.gguf}}\n" for n in range(_FILES))
    file = folder / "recipe.yaml"
    file.write_text(
        f"version: 1\nserver: {{data: ./data}}\nmodels:\n{models}policies: {{backup: {{to: ./backups, keep: 3}}}}\n",
        encoding="utf-8",
    )
    return file


def _speed(folder: Path, recipe: Path) -> list[Figure]:
    weights = sorted((folder / "weights").iterdir())
    size = sum(file.stat().st_size for file in weights)
    _sums(weights)  # so that all find the files in the system's memory
    rounds = [_round(folder, recipe, weights) for _ in range(_ROUNDS)]
    ratio = median(each.alone / each.work for each in rounds)
    alone = median(each.alone for each in rounds)
    first = sorted((each.first for each in rounds), key=lambda run: run.work)[_ROUNDS // 2]
    second = _run(recipe)
    with weights[0].open("r+b") as file:
        file.seek(size // _FILES // 2)
        file.write(b"changed")
    third = _run(recipe).figures
    return [
        Figure("first run beside SHA-256 alone", ratio, "x", 0.6, "at least", f"{size / alone / 1e6:.0f} MB/s", 2),
        Figure("first run, reading, summing and writing", size / first.work / 1e6, "MB/s"),
        Figure("first run, until the disk has it all", size / first.seconds / 1e6, "MB/s"),
        Figure(
            "first run, stored of what was read",
            first.figures["bytes_stored"] / first.figures["bytes_read"],
            "x",
            digits=3,
        ),
        Figure("memory of the process", max(each.first.memory for each in rounds) * 1024 / 1e6, "MB", 200, digits=0),
        Figure("second run, nothing changed", second.seconds, "s", digits=2),
        Figure("second run, read", second.figures["bytes_read"] / 1e6, "MB", 1),
        Figure("one file changed, read", third["bytes_read"] / 1e6, "MB", size / _FILES / 1e6 * 1.01),
        Figure("one file changed, stored", third["bytes_stored"] / 1e6, "MB", 1, digits=3),
    ]


class _Round(NamedTuple):
    """SHA-256 alone over all files, in seconds, and a first backup of them right after."""

    alone: float
    first: "_Run"

    @property
    def work(self) -> float:
        return self.first.work


def _round(folder: Path, recipe: Path, weights: list[Path]) -> _Round:
    for left in ("backups", "data"):
        shutil.rmtree(folder / left, ignore_errors=True)
    os.sync()  # what the one before left to be written or freed would be paid for here
    return _Round(_sums(weights), _run(recipe))


def _sums(files: list[Path]) -> float:
    began = time.perf_counter()
    for path in files:
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
    return time.perf_counter() - began


class _Run(NamedTuple):
    """`seconds` of the work, of which the disk was waited for `waited`; the report's figures, the peak in KiB."""

    seconds: float
    waited: float
    figures: dict[str, float]
    memory: int

    @property
    def work(self) -> float:
        return self.seconds - self.waited


def _run(recipe: Path) -> _Run:
    done = subprocess.run([sys.executable, "-c", _ONE, str(recipe)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotRun(f"the backup did not run: {done.stderr.strip().splitlines()[-1:]}")
    return _Run(*json.loads(done.stdout))
