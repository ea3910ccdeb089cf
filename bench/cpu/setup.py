"""What every part of the cpu bench starts from: how much is measured, the models, and two sides' rates as a figure."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.cpu.servers import Llama
from bench.table import Figure

FIRST_PROMPT = 512
"""Tokens of a prompt whose first token is waited for."""
SHORT_PROMPT = 32
"""Tokens of a prompt that is to be answered."""


@dataclass(frozen=True)
class Size:
    """How much is measured: `rounds` of both sides alternating, answers of `tokens`, `firsts` first tokens."""

    rounds: int
    tokens: int
    firsts: int
    long: bool


FULL = Size(rounds=5, tokens=128, firsts=40, long=True)
QUICK = Size(rounds=1, tokens=16, firsts=5, long=False)


@dataclass(frozen=True)
class Setup:
    """`folder` is the bench's own."""

    folder: Path
    size: Size
    llama: Llama


def model(shape: str, quant: str) -> Path:
    """The GGUF file of a random model, built the first time."""
    from tests.making import made

    return made("random", family={"0.6b": "qwen3", "30m": "llama"}[shape], shape=shape, quant=quant)


def tell(text: str) -> None:
    """What the bench is at, beside its figures."""
    print(f"... {text}", file=sys.stderr, flush=True)


def ratio(name: str, bar: float | None, peer: str, rates: Sequence[tuple[float, float]]) -> Figure:
    """The median over rounds of Hearth's tokens a second by the peer's, which were measured one after the other."""
    mine, theirs = (median(side) for side in zip(*rates, strict=True))
    told = f"Hearth {mine:.1f} tokens/s, {peer} {theirs:.1f}"
    return Figure(name, median(ours / peers for ours, peers in rates), "x", bar, "at least", told, 2)
