"""The cpu bench over HTTP: Hearth as a user starts it beside llama.cpp's own server, and what only Hearth is held to.

Both servers are up at once and asked in turn, so that whatever the machine does meets both.
"""

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import uvloop

from bench.cpu.bare import engine
from bench.cpu.client import Stream, asked, single, together
from bench.cpu.prompts import Prompts
from bench.cpu.servers import served
from bench.cpu.setup import FIRST_PROMPT, SHORT_PROMPT, Setup, model, ratio, tell
from bench.live import Live
from bench.table import CannotRun, Figure

_CONTEXT = 1024
_QUANTS = ("q8_0", "q4_0")
_MANY = 8
_STREAMS = (1, 8, 32)
_FRONT_TOKENS = 200
_SHARED, _SHARING = 480, 500
_LONG, _LONG_CONTEXT, _BESIDE = 25_000, 32_768, 8192


# ---- beside llama.cpp -----------------------------------------------------------------------------------------------


def http(setup: Setup) -> list[Figure]:
    """Prefill and 8 streams on the 0.6b shape."""
    return [figure for quant in _QUANTS for figure in _http(setup, quant)]


def _http(setup: Setup, quant: str) -> list[Figure]:
    tell(f"http, 0.6b {quant}")
    file, name, tokens = model("0.6b", quant), setup.llama.name, setup.size.tokens
    prompts = Prompts(file)
    keys = {"context": _CONTEXT, "parallel": _MANY, "cache_tokens": _MANY * _CONTEXT}
    with (
        served(setup.folder / f"http-{quant}", file, **keys) as ours,
        setup.llama.serving(setup.folder, file, _MANY, _CONTEXT) as theirs,
    ):
        sides = (ours, theirs)
        _prefills(sides, prompts, 1)
        _streams(sides, prompts, _MANY, 4, 1)
        prefills = _prefills(sides, prompts, setup.size.rounds)
        alone = _streams(sides, prompts, 1, tokens, setup.size.rounds)
        many = _streams(sides, prompts, _MANY, tokens, setup.size.rounds)
    return [
        ratio(f"0.6b {quant} over HTTP, prefill of {FIRST_PROMPT}", 2.0, name, prefills),
        ratio(f"0.6b {quant} over HTTP, 1 stream", None, name, alone),
        ratio(f"0.6b {quant} over HTTP, {_MANY} streams", 1.8, name, many),
    ]


def streams(setup: Setup) -> list[Figure]:
    """1, 8 and 32 streams on the 30m shape."""
    tell("streams, 30m q8_0")
    file, most = model("30m", "q8_0"), max(_STREAMS)
    prompts = Prompts(file)
    keys = {"context": _CONTEXT, "parallel": most, "cache_tokens": most * _CONTEXT}
    with (
        served(setup.folder / "streams", file, **keys) as ours,
        setup.llama.serving(setup.folder, file, most, _CONTEXT) as theirs,
    ):
        _streams((ours, theirs), prompts, most, 4, 1)
        rates = {n: _streams((ours, theirs), prompts, n, setup.size.tokens, setup.size.rounds) for n in _STREAMS}
    return [
        ratio(f"30m q8_0 over HTTP, {count} stream{'s' * (count > 1)}", 1.0, setup.llama.name, found)
        for count, found in rates.items()
    ]


_Rates = list[tuple[float, float]]


def _prefills(sides: tuple[Live, Live], prompts: Prompts, rounds: int) -> _Rates:
    """Prompt tokens by the seconds to the end of an answer of one token, which needs no step but the prompt's."""

    def rate(side: Live, text: str) -> float:
        answer = uvloop.run(single(side.port, text, 1))
        return answer.prompt_tokens / answer.seconds

    return [_paired([rate(side, text) for side in sides]) for text in _texts(prompts, FIRST_PROMPT, rounds)]


def _streams(sides: tuple[Live, Live], prompts: Prompts, count: int, tokens: int, rounds: int) -> _Rates:
    """Answer tokens of `count` streams by the seconds from asking until the last one ended."""
    rounds_of = [[asked(text, tokens) for text in _texts(prompts, SHORT_PROMPT, count)] for _ in range(rounds)]
    return [_paired([uvloop.run(together(side.port, each)).rate for side in sides]) for each in rounds_of]


def _texts(prompts: Prompts, tokens: int, count: int) -> list[str]:
    return [prompts.unique(tokens).text for _ in range(count)]


def _paired(rates: Sequence[float]) -> tuple[float, float]:
    ours, theirs = rates
    return ours, theirs


# ---- beside itself --------------------------------------------------------------------------------------------------


def prefix(setup: Setup) -> list[Figure]:
    """The first token of a prompt that shares 480 of its 500 tokens with an earlier one."""
    tell("prefix, 0.6b q4_0")
    file = model("0.6b", "q4_0")
    prompts = Prompts(file)
    rounds = max(setup.size.rounds, 3)
    with served(setup.folder / "prefix", file, context=_CONTEXT, parallel=_MANY, cache_tokens=16 * _CONTEXT) as ours:

        def first(text: str) -> float:
            return uvloop.run(single(ours.port, text, 1)).seconds

        known, *sharing = prompts.sharing(_SHARED, _SHARING, rounds + 1)
        first(prompts.unique(_SHARING).text)
        first(known.text)
        pairs = [(first(prompts.unique(_SHARING).text), first(prompt.text)) for prompt in sharing]
    cold, warm = (median(side) * 1e3 for side in zip(*pairs, strict=True))
    share = median(shared / alone for alone, shared in pairs)
    told = f"cold {cold:.0f} ms, shared {warm:.0f} ms"
    return [Figure(f"first token, {_SHARED} of {_SHARING} tokens shared", share, "x", 0.1, peer=told, digits=3)]


def front(setup: Setup) -> list[Figure]:
    """What HTTP, the gateway and the worker add to the engine stepped by itself, at one stream of the 30m shape."""
    tell("front, 30m q8_0")
    file = model("30m", "q8_0")
    prompts = Prompts(file)
    keys = {"context": _CONTEXT, "parallel": _MANY, "cache_tokens": _MANY * _CONTEXT}
    with served(setup.folder / "front", file, **keys) as ours, engine(file, _CONTEXT) as bare:

        def firsts() -> tuple[float, float]:
            prompt = prompts.unique(SHORT_PROMPT)
            return bare.run([prompt.ids], 1).first, uvloop.run(single(ours.port, prompt.text, 1)).seconds

        def tokens() -> tuple[float, float]:
            prompt = prompts.unique(SHORT_PROMPT)
            written = uvloop.run(single(ours.port, prompt.text, _FRONT_TOKENS))
            return 1 / bare.run([prompt.ids], _FRONT_TOKENS).rate, (written.seconds - first) / (written.tokens - 1)

        firsts()
        beginnings = [firsts() for _ in range(setup.size.firsts)]
        bare_first, first = (median(side) for side in zip(*beginnings, strict=True))
        bare_token, token = (median(side) for side in zip(*(tokens() for _ in range(setup.size.rounds)), strict=True))

    def added(name: str, bar: float, mine: float, engine_alone: float) -> Figure:
        told = f"over HTTP {mine * 1e3:.2f} ms, the engine alone {engine_alone * 1e3:.2f}"
        return Figure(
            f"30m q8_0, added by our front {name}", (mine - engine_alone) * 1e3, "ms", bar, peer=told, digits=2
        )

    return [added("to a token", 1.0, token, bare_token), added("to the first token", 8.0, first, bare_first)]


def long(setup: Setup) -> list[Figure]:
    """An IDE assistant's first turn, while somebody else is being answered."""
    if not setup.size.long:
        return []
    tell(f"long, 0.6b q4_0, {_LONG} tokens")
    file = model("0.6b", "q4_0")
    prompts = Prompts(file)
    keys = {"context": _LONG_CONTEXT, "cache_tokens": _LONG_CONTEXT + _BESIDE}
    with served(setup.folder / "long", file, **keys) as ours:
        seconds, tokens, gap, beside = uvloop.run(_long(ours.port, prompts))
    return [
        Figure(f"prompt of {tokens} tokens, to its first token", seconds, "s"),
        Figure("the same", tokens / seconds, "tokens/s"),
        Figure("another stream's longest gap meanwhile", gap * 1e3, "ms", peer=f"{beside} pieces arrived", digits=0),
    ]


async def _long(port: int, prompts: Prompts) -> tuple[float, int, float, int]:
    """Seconds and tokens of the long prompt; the longest gap and the arrivals of the stream beside it."""
    text = prompts.unique(_LONG).text
    other = await Stream.open(port)
    other.send(asked(prompts.unique(SHORT_PROMPT).text, _BESIDE - _CONTEXT))
    await other.first
    begun = time.perf_counter()
    answer = await single(port, text, 1)
    ended = time.perf_counter()
    if other.ended:
        raise CannotRun("the stream beside the long prompt ended before it")
    other.close()
    times = [begun, *(at for at in other.arrivals if begun < at < ended), ended]
    gap = max(after - before for before, after in pairwise(times))
    return answer.seconds, answer.prompt_tokens, gap, len(times) - 2
