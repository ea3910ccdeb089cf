"""The cpu bench without HTTP: the paged engine stepped by itself beside GenAI's pipeline, each in its own process."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench import environment
from bench.cpu.prompts import Prompts
from bench.cpu.setup import FIRST_PROMPT, SHORT_PROMPT, Setup, model, ratio, tell
from bench.side import ROOT, Side, side
from bench.table import Figure

_CONTEXT = 1024
_QUANTS = ("q8_0", "q4_0")
_STREAMS = (1, 4, 8)


class Run(NamedTuple):
    """Seconds until every answer had its first token, seconds from then on, and the tokens of those."""

    first: float
    seconds: float
    tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second, the prompts left out."""
        return self.tokens / self.seconds


class Engine:
    """An engine in a process that steps nothing else."""

    def __init__(self, process: Side) -> None:
        self.name = process.told
        self._process = process

    def run(self, prompts: Sequence[list[int]], tokens: int) -> Run:
        """Answers of `tokens` tokens to prompts of token ids, all at once."""
        return Run(*self._process.ask([list(prompts), tokens]))


@contextmanager
def engine(file: Path, context: int, *, kernel: bool = True) -> Iterator[Engine]:
    """Hearth's, with the kernel that was built on this machine, where there is one and `kernel` wants it."""
    line = [sys.executable, "-m", "bench.cpu.ours", str(file), str(context)]
    with side(line if kernel else [*line, "without"]) as process:
        yield Engine(process)


@contextmanager
def _genai(file: Path) -> Iterator[Engine]:
    """GenAI's, of the same release as the runtime Hearth has. It gets a link to the file, beside which it may write."""
    python = environment.python("genai", [f"openvino-genai=={metadata.version('openvino')}"])
    with TemporaryDirectory() as folder:
        link = Path(folder) / file.name
        link.symlink_to(file)
        # -P: the modules beside the script are not for it to import.
        with side([str(python), "-P", str(ROOT / "bench" / "cpu" / "genai.py"), str(link)]) as process:
            yield Engine(process)


def bare(setup: Setup) -> list[Figure]:
    """Prefill, and 1, 4 and 8 streams, on the 0.6b shape."""
    return [figure for quant in _QUANTS for figure in _bare(setup, quant)]


def _bare(setup: Setup, quant: str) -> list[Figure]:
    tell(f"bare, 0.6b {quant}")
    file = model("0.6b", quant)
    prompts = Prompts(file)
    with engine(file, _CONTEXT) as ours, _genai(file) as theirs:
        return in_turn((ours, theirs), prompts, setup, f"0.6b {quant} bare", theirs.name)


def in_turn(sides: tuple[Engine, Engine], prompts: Prompts, setup: Setup, name: str, peer: str) -> list[Figure]:
    """How many times as fast as the second side the first one is, in prefill and in 1, 4 and 8 streams."""
    prefill(sides, prompts)
    decode(sides, prompts, max(_STREAMS), 4)
    rounds = [
        (prefill(sides, prompts), *(decode(sides, prompts, count, setup.size.tokens) for count in _STREAMS))
        for _ in range(setup.size.rounds)
    ]
    whats = (f"prefill of {FIRST_PROMPT}", *(f"{count} stream{'s' * (count > 1)}" for count in _STREAMS))
    return [
        ratio(f"{name}, {what}", 1.0, peer, rates) for what, rates in zip(whats, zip(*rounds, strict=True), strict=True)
    ]


def prefill(sides: tuple[Engine, Engine], prompts: Prompts) -> tuple[float, float]:
    """Tokens a second of a prompt, of both."""
    ids = prompts.unique(FIRST_PROMPT).ids
    ours, theirs = (len(ids) / each.run([ids], 1).first for each in sides)
    return ours, theirs


def decode(sides: tuple[Engine, Engine], prompts: Prompts, count: int, tokens: int) -> tuple[float, float]:
    """Tokens a second of so many answers at once, the prompts left out, of both."""
    asked = [prompts.unique(SHORT_PROMPT).ids for _ in range(count)]
    ours, theirs = (each.run(asked, tokens).rate for each in sides)
    return ours, theirs
