"""Drives an engine or a server as several clients at once, and takes the time of it."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from server.models.engine import Delta, Engine, Failed, Generate, Sampling, is_last


@dataclass(frozen=True)
class Timing:
    """Seconds: `first` the median wait for a first token, `whole` until the last; `ids` of the answers."""

    streams: int
    tokens: int
    first: float
    whole: float
    ids: list[list[int]]

    @property
    def rate(self) -> float:
        """Tokens a second of all streams together once all had begun, the prompts' time left out."""
        return (self.tokens - self.streams) / max(1e-9, self.whole - self.first)


def prompts(count: int, length: int, vocabulary: int, seed: int = 1) -> list[list[int]]:
    """Random token ids, the same every time; none is a control token, which are the last of the small vocabulary."""
    random = np.random.default_rng(seed)
    return [[int(each) for each in random.integers(0, min(vocabulary, 1000), length)] for _ in range(count)]


def engine_timed(engine: Engine, asked: Sequence[Sequence[int]], tokens: int) -> Timing:
    """All prompts at once, greedily, to the full length. Raises RuntimeError where one is refused."""
    started = time.perf_counter()
    first = [0.0] * len(asked)
    ids: list[list[int]] = [[] for _ in asked]
    for key, prompt in enumerate(asked):
        greedy = Sampling(temperature=0.0, ignore_eos=True)
        engine.submit(key, Generate(prompt=list(prompt), max_tokens=tokens, sampling=greedy, token_ids=True))
    left = len(asked)
    while left:
        for key, event in engine.step():
            if isinstance(event, Failed):
                raise RuntimeError(f"request {key} failed: {event.message}")
            if isinstance(event, Delta) and event.ids:
                first[key] = first[key] or time.perf_counter() - started
                ids[key] += event.ids
            left -= is_last(event)
    whole = time.perf_counter() - started
    return Timing(len(asked), sum(map(len, ids)), float(np.median(first)), whole, ids)


def server_timed(url: str, model: str, asked: Sequence[Sequence[int]], tokens: int) -> Timing:
    """The same over HTTP, each prompt a streaming client of its own."""
    return asyncio.run(_server_timed(url, model, asked, tokens))


async def _server_timed(url: str, model: str, asked: Sequence[Sequence[int]], tokens: int) -> Timing:
    started = time.perf_counter()
    limits = httpx.Limits(max_connections=len(asked))
    async with httpx.AsyncClient(base_url=url, timeout=300, trust_env=False, limits=limits) as client:
        got = await asyncio.gather(*(_streamed(client, model, prompt, tokens, started) for prompt in asked))
    whole = time.perf_counter() - started
    firsts = [first for first, _ in got]
    return Timing(len(asked), sum(count for _, count in got), float(np.median(firsts)), whole, [])


async def _streamed(
    client: httpx.AsyncClient, model: str, prompt: Sequence[int], tokens: int, started: float
) -> tuple[float, int]:
    """Seconds to the first token, and how many came."""
    first, count = 0.0, 0
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"the server answered {answer.status_code}: {(await answer.aread()).decode()[:300]}")
        async for line in answer.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            first = first or time.perf_counter() - started
            usage = json.loads(line[6:]).get("usage")
            count = usage["completion_tokens"] if usage else count
    return first, count
