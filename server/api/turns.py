"""The answers of one request as they come: admitted together, merged, counted; the same for every wire of a model."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from server.api.wire import CompletionTokensDetails, PromptTokensDetails, Usage
from server.chat import Part, Started
from server.errors import ModelUnavailable

Turn = AsyncGenerator[Started | list[Part], None]


class Head(NamedTuple):
    """What all chunks of one answer share."""

    id: str
    created: int
    model: str
    fingerprint: str


async def admit(turns: list[Turn]) -> list[Started]:
    """Await every turn's Started, so that faults up to there are ordinary HTTP errors."""
    if len(turns) == 1:  # nearly always: one that did not start has ended
        return [await started(turns[0])]
    waiting = [asyncio.ensure_future(started(turn)) for turn in turns]
    try:
        return await asyncio.gather(*waiting)
    except BaseException:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)  # a turn that is being started cannot be closed
        for turn in turns:
            await turn.aclose()
        raise


async def started(turn: Turn) -> Started:
    match await anext(turn, None):
        case Started() as started:
            return started
        case _:
            raise ModelUnavailable("The model ended before it began.", retry_after=1)


class Count:
    """What the choices of one request have used so far."""

    def __init__(self) -> None:
        self.written = self.reasoned = self.cached = 0

    def add(self, parts: list[Part]) -> None:
        for part in parts:
            self.written += part.tokens
            self.reasoned += part.reasoning_tokens
            self.cached = max(self.cached, part.cached_tokens)

    def usage(self, read: int) -> Usage:
        """`read` is the tokens of all prompts."""
        return Usage(
            prompt_tokens=read,
            completion_tokens=self.written,
            total_tokens=read + self.written,
            prompt_tokens_details=PromptTokensDetails(self.cached),
            completion_tokens_details=CompletionTokensDetails(self.reasoned),
        )


def added(step: Started | list[Part]) -> list[Part]:
    """The parts of one step of a turn, which has none where the turn starts."""
    return step if isinstance(step, list) else []


async def whole(turns: list[Turn]) -> list[list[Part]]:
    """All parts of each answer. One answer's fault ends all."""
    if len(turns) == 1:
        return [[part async for step in turns[0] for part in added(step)]]
    said: list[list[Part]] = [[] for _ in turns]
    async with aclosing(merged(turns)) as arriving:
        async for index, parts in arriving:
            said[index] += parts
    return said


async def steps(turns: list[Turn]) -> AsyncGenerator[tuple[int, list[Part]], None]:
    """The parts of all answers as they come, with the number of their turn. One answer's fault ends all."""
    if len(turns) == 1:  # nearly always: and then tasks and a queue would cost more than the parts themselves
        async with aclosing(turns[0]):
            async for step in turns[0]:
                yield 0, added(step)
        return
    async with aclosing(merged(turns)) as arriving:
        async for arrived in arriving:
            yield arrived


async def merged(turns: list[Turn]) -> AsyncGenerator[tuple[int, list[Part]], None]:
    """The parts of several answers as they come. One answer's fault ends all."""
    arrived: asyncio.Queue[tuple[int, list[Part]] | None] = asyncio.Queue()

    async def forward(index: int, turn: Turn) -> None:
        try:
            async with aclosing(turn):
                async for step in turn:
                    arrived.put_nowait((index, added(step)))
        finally:
            arrived.put_nowait(None)

    tasks = [asyncio.create_task(forward(index, turn)) for index, turn in enumerate(turns)]
    try:
        for _ in tasks:
            while (item := await arrived.get()) is not None:
                yield item
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
