"""One call of a worker: what it brought so far, and how it ends."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class CallExpired(Exception):
    """A call was not answered in its time."""


class WorkerLost(Exception):
    """The process ended under a call; the text says how."""


class Call:
    """What a call brings, as an async iterator of the bodies that arrived together. A context manager: left before the
    end, it is cancelled in the worker within one step."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._arrived: list[bytes] = []
        self._ended = False
        self._error: WorkerLost | CallExpired | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._ended:
            self._ended = True
            self._cancel()

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

    def expire_at(self, until: float) -> None:
        """At this time of the loop's clock it is cancelled in the worker, and iterating raises CallExpired."""
        self._timer = asyncio.get_running_loop().call_at(until, self._expire)

    def _expire(self) -> None:
        if not self._ended:
            self._ended = True
            self._cancel()
            self._error = CallExpired("its time was over")
            self._awake()

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
