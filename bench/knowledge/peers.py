"""Other vector stores on the rows of the knowledge bench, each in a process and an environment of its own."""

import json
import subprocess
from pathlib import Path

import numpy as np

from bench import environment
from bench.knowledge.made import vectors
from bench.side import ROOT
from bench.table import CannotRun, Figure

_PACKAGES = {"chroma": "chromadb==1.5.9", "usearch": "usearch==2.26.6", "faiss": "faiss-cpu==1.15.1"}
_QUESTIONS, _K = 100, 10
_SCRIPT = ROOT / "bench" / "knowledge" / "peer.py"


def peers(folder: Path, count: int) -> list[Figure]:
    """What each takes for a question over `count` vectors, and what it finds of the exact answer."""
    rows = vectors(count, 0)
    questions = vectors(_QUESTIONS, -1 % 2**32)
    folder.mkdir()
    np.save(folder / "vectors.npy", rows)
    np.save(folder / "questions.npy", questions)
    exact = np.argsort(-(questions @ rows.T), axis=1)[:, :_K].tolist()
    return [_figure(name, package, folder, count, exact) for name, package in _PACKAGES.items()]


def _figure(name: str, package: str, folder: Path, count: int, exact: list[list[int]]) -> Figure:
    python = environment.python(f"knowledge-{name}", (package, "numpy"))
    own = folder / name
    own.mkdir()
    given = [folder / "vectors.npy", folder / "questions.npy", own, _K]
    done = subprocess.run([str(python), str(_SCRIPT), name, *map(str, given)], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise CannotRun(f"{name} ended with {done.returncode}; what it said is above")
    told = json.loads(done.stdout.splitlines()[-1])
    pairs = zip(told["answers"], exact, strict=True)
    recall = float(np.mean([len(set(found) & set(wanted)) / _K for found, wanted in pairs]))
    cost = (
        f"{told['disk'] / 1e6:.0f} MB on disk, {told['memory'] / 1e6:.0f} MB in memory, {told['built']:.0f} s to build"
    )
    name = f"{count:,} vectors, {package.replace('==', ' ')}, p50"
    return Figure(name, float(np.median(told["ms"])), "ms", peer=f"recall {recall:.4f}, {cost}", digits=2)
