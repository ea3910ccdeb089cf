"""What the gateway costs beside a raw ASGI app, and the hop to a worker beside the same engine called in process.

Every two sides alternate within one run, and each figure is the median over the rounds.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import uvloop

from bench import client, hop
from bench.live import Live, free_port, hearth, listens, process
from bench.raw import Headers, Script
from bench.table import Figure, report

_STREAMS = 32
_TOKENS = 200
_CONNECTIONS = 8
_PATH = "/v1/chat/completions"
_RECIPE = f"""\
version: 1
models:
  fast: {{engine: echo}}
  paced: {{engine: echo, tokens_per_second: {hop.PACE:g}}}
"""
_SERVERS_OWN = (b"date", b"server", b"connection", b"transfer-encoding", b"content-length")


@dataclass(frozen=True)
class _Size:
    """How much is measured."""

    rounds: int
    requests: int
    first_tokens: int
    rate_tokens: int


_FULL = _Size(rounds=3, requests=250, first_tokens=300, rate_tokens=150)
_QUICK = _Size(rounds=1, requests=60, first_tokens=100, rate_tokens=60)


class _Cost(NamedTuple):
    """CPU microseconds of the serving process; `writes` is tokens that went out together."""

    request: float
    listing: float
    token: float
    writes: float
    paced_token: float
    paced_writes: float


def bench(quick: bool) -> int:
    size = _QUICK if quick else _FULL
    with TemporaryDirectory() as folder:
        costs = _costs(Path(folder), size)
        hops = uvloop.run(hop.measure(Path(folder), size.rounds, size.first_tokens, size.rate_tokens))
    return report([*_cost_figures(*costs), *_hop_figures(hops)])


# ---- CPU of the gateway ---------------------------------------------------------------------------------------------


def _costs(folder: Path, size: _Size) -> tuple[_Cost, _Cost]:
    """Hearth's and the raw app's."""
    recipe = folder / "gateway.yaml"
    recipe.write_text(_RECIPE, encoding="utf-8")
    with hearth(recipe, folder / "data") as live, _raw(folder, uvloop.run(_recorded(live.port))) as peer:
        sides = (live, peer)
        for side in sides:
            uvloop.run(_cost(side, 20))
        rounds = [[uvloop.run(_cost(side, size.requests)) for side in sides] for _ in range(size.rounds)]
    ours, theirs = (_Cost(*map(median, zip(*costs, strict=True))) for costs in zip(*rounds, strict=True))
    return ours, theirs


async def _cost(side: Live, requests: int) -> _Cost:
    return _Cost(
        await _asking(side, _whole(), requests),
        await _asking(side, client.get("/v1/models"), requests),
        *await _streaming(side, "fast"),
        *await _streaming(side, "paced"),
    )


async def _asking(side: Live, request: bytes, requests: int) -> float:
    before = side.cpu()
    await client.load(side.port, request, _CONNECTIONS, requests)
    return (side.cpu() - before) * 1e6 / (_CONNECTIONS * requests)


async def _streaming(side: Live, model: str) -> tuple[float, float]:
    """CPU of a token, and how many tokens were written at once."""
    before = side.cpu()
    answers = await client.load(side.port, _stream(model), _STREAMS, 1)
    spent = (side.cpu() - before) * 1e6
    tokens = _STREAMS * _TOKENS
    return spent / tokens, tokens / sum(len(client.chunks(answer.body)) for answer in answers)


def _whole() -> bytes:
    return client.post(_PATH, {"model": "fast", "messages": [{"role": "user", "content": "Hello"}]})


def _stream(model: str) -> bytes:
    words = " ".join(["word"] * _TOKENS)
    return client.post(_PATH, {"model": model, "messages": [{"role": "user", "content": words}], "stream": True})


async def _recorded(port: int) -> Script:
    """What Hearth answers, for the peer to send the same bytes."""
    whole = await client.once(port, _whole())
    stream = await client.once(port, _stream("fast"))
    events = [event + b"\n\n" for event in b"".join(client.chunks(stream.body)).split(b"\n\n") if event]
    return Script(whole.body, _headers(whole) + _length(whole), events, _headers(stream), 1 / hop.PACE)


def _headers(answer: client.Answer) -> Headers:
    pairs = (line.split(b": ", 1) for line in answer.head.strip().split(b"\r\n")[1:])
    return [(name.lower(), value) for name, value in pairs if name.lower() not in _SERVERS_OWN]


def _length(answer: client.Answer) -> Headers:
    return [(b"content-length", str(len(answer.body)).encode())]


@contextmanager
def _raw(folder: Path, script: Script) -> Iterator[Live]:
    file = folder / "raw.msgpack"
    file.write_bytes(msgspec.msgpack.encode(script))
    port = free_port()
    command = [sys.executable, "-m", "bench.raw", str(port), str(file)]
    with process(command, port, folder / "raw.log", {}, listens) as live:
        yield live


def _cost_figures(ours: _Cost, theirs: _Cost) -> list[Figure]:
    def figure(name: str, mine: float, raw: float, bar: float | None, more: str = "") -> Figure:
        return Figure(name, mine - raw, "µs", bar, peer=f"Hearth {mine:.1f}, raw ASGI {raw:.1f}{more}")

    fast, paced = (f"; {writes:.1f} tokens a write" for writes in (ours.writes, ours.paced_writes))
    return [
        figure("CPU a chat request, beyond raw", ours.request, theirs.request, 150),
        figure("CPU a GET /v1/models, beyond raw", ours.listing, theirs.listing, None),
        figure("CPU a streamed token, beyond raw", ours.token, theirs.token, 15, fast),
        # Slow streams, each token written by itself: the price of waking for it, which the raw app pays with a timer.
        figure(f"the same, both at {hop.PACE:g} tokens/s a stream", ours.paced_token, theirs.paced_token, None, paced),
    ]


# ---- the hop to a worker --------------------------------------------------------------------------------------------


def _hop_figures(found: hop.Hops) -> list[Figure]:
    local, far = found.first_local * 1e3, found.first_worker * 1e3
    ratio = found.rate_worker / found.rate_local
    rates = f"worker {found.rate_worker:.0f} tokens/s, in process {found.rate_local:.0f}"
    return [
        Figure("first token, added by the hop", far - local, "ms", 0.3, peer=f"in process {local:.3f} ms", digits=3),
        Figure(f"tokens/s kept at {hop.STREAMS} streams", ratio, "x", 0.97, "at least", rates, 3),
    ]
