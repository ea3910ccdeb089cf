"""How much of the memory's bandwidth one stream at 4 bits uses: Hearth's engine, and llama.cpp's server beside it.

What llama.cpp reaches says how far the bandwidth can be used at all on this machine: a processor with much of it for
each core computes longer than it reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import uvloop

from bench.cpu.bare import engine
from bench.cpu.client import single
from bench.cpu.memory import Bandwidth, bytes_per_token
from bench.cpu.prompts import Prompts
from bench.cpu.setup import SHORT_PROMPT, Setup, model, tell
from bench.live import Live
from bench.table import Figure

_CONTEXT = 1024


def share(setup: Setup) -> list[Figure]:
    """Of the 0.6b shape: tokens a second after the first one, by the bytes each reads and the bytes memory gives.

    The sides and the memory are measured in turn. llama.cpp's server has to be one compiled for this processor, for a
    wheel's would tell less than the machine can do.
    """
    tell("share, 0.6b q4_0")
    file = model("0.6b", "q4_0")
    prompts, read, memory = Prompts(file), bytes_per_token(file), Bandwidth()
    ours: list[float] = []
    theirs: list[float] = []
    bandwidths: list[float] = []
    with engine(file, _CONTEXT) as hearth, _peer(setup) as llama:
        hearth.run([prompts.unique(SHORT_PROMPT).ids], 8)
        if llama is not None:
            _rate(llama, prompts, 8)
        for _ in range(setup.size.rounds):
            ours.append(hearth.run([prompts.unique(SHORT_PROMPT).ids], setup.size.tokens).rate)
            if llama is not None:
                theirs.append(_rate(llama, prompts, setup.size.tokens))
            bandwidths.append(memory.usual())

    def used(rates: list[float]) -> float:
        return median(read * rate / most for rate, most in zip(rates, bandwidths, strict=True))

    told = f"{median(ours):.1f} tokens/s of {read / 1e6:.0f} MB (the file's tensors)"
    told += f", memory {median(bandwidths) / 1e9:.1f} GB/s"
    if theirs:
        told += f"; {setup.llama.name} {median(theirs):.1f} tokens/s, {used(theirs):.2f} x"
    return [Figure("0.6b q4_0, 1 stream's share of the memory bandwidth", used(ours), "x", 0.65, "at least", told, 2)]


@contextmanager
def _peer(setup: Setup) -> Iterator[Live | None]:
    if not setup.llama.native:
        yield None
        return
    with setup.llama.serving(setup.folder, model("0.6b", "q4_0"), 1, _CONTEXT) as live:
        yield live


def _rate(llama: Live, prompts: Prompts, tokens: int) -> float:
    """Tokens a second after the first one, whose time is that of an answer that has no other."""
    first, whole = (uvloop.run(single(llama.port, prompts.unique(SHORT_PROMPT).text, many)) for many in (1, tokens))
    return (whole.tokens - 1) / (whole.seconds - first.seconds)
