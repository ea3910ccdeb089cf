"""One call of a worker: what it brought so far, and how it ends."""

import asyncio
from collections.abc import Callable
from typing import Self


class CallExpired(Exception):
    """A call was not answered in its time."""


class WorkerLost(Exception):
    """The process ended under a call; the text says how."""


class Call:
    """What a call brings, as an async iterator of the bodies that arrived together. Leave it early with `aclose`."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._arrived: list[bytes] = []
        self._ended = False
        self._error: WorkerLost | CallExpired | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[bytes]:
        while not self._arrived:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        arrived, self._arrived = self._arrived, []
        return arrived

    def expire(self) -> None:
        """Its time is over: it is cancelled in the worker, and iterating raises CallExpired. No fault once it ended."""
        if not self._ended:
            self._ended = True
            self._cancel()
            self._error = CallExpired("its time was over")
            self._awake()

    async def aclose(self) -> None:
        """Idempotent. A call that has not ended is cancelled in the worker within one step."""
        if not self._ended:
            self._ended = True
            self._cancel()

    def take(self, body: bytes, last: bool) -> None:
        self._arrived.append(body)
        self._ended = self._ended or last
        self._awake()

    def lose(self, error: WorkerLost) -> None:
        self._ended = True
        self._error = error
        self._awake()

    def _awake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
