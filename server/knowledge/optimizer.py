"""Has tables' upkeep done in a process of its own, which takes the processor time that others leave.

Joining files and refreshing indices take a tenth of a second to minutes of all processors. In the gateway every search
and every change would wait for them meanwhile, and the models' processes compute slower.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import msgspec

from server.worker import Worker, WorkerFailed, WorkerLost, WorkerUnavailable

log = logging.getLogger(__name__)

_SERVICE = "server.knowledge.optimizing:Optimizing"
_START_S = 120.0
_IDLE_S = 60.0
"""After so long without work the process ends: it holds LanceDB, some 100 MB."""


class Optimize(msgspec.Struct, frozen=True):
    """What the process is told: a table, the columns that searches filtered by with their types, and seconds."""

    folder: str
    table: str
    filtered: dict[str, str]
    retention: float


class Optimized(msgspec.Struct, frozen=True):
    """How it went: the seconds of a processor it took, and why it failed, where it did."""

    seconds: float
    fault: str | None = None


class Optimizer:
    """One process for all collections, started when it is first needed. A context, open as long as they are."""

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self.worker: Worker | None = None
        self._idle_s = idle_s
        self._running = 0
        self._starting = asyncio.Lock()
        self._ending: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._stop()
        await asyncio.gather(*self._background, return_exceptions=True)

    def expect(self) -> None:
        """There will be work: the process takes a second or more of a processor to start, and makes way meanwhile."""
        if self.worker is None and not self._starting.locked():
            self._aside(self._expected(), "starting upkeep")

    async def _expected(self) -> None:
        with suppress(WorkerUnavailable, TimeoutError, OSError):  # who asks is told
            await self._started()
        self._rest()

    async def optimize(
        self, folder: Path, table: str, filtered: Mapping[str, str], retention: timedelta
    ) -> float | None:
        """As the store's own; returns the seconds of a processor it took, None where there is no process to be had.

        Raises RuntimeError with the table's fault.
        """
        asked = Optimize(str(folder), table, dict(filtered), retention.total_seconds())
        self._running += 1
        try:
            answer = b""
            async for bodies in (await self._started()).call(msgspec.msgpack.encode(asked)):
                answer = bodies[-1]
        except (WorkerUnavailable, TimeoutError, OSError) as error:
            log.warning("tables are kept by the gateway itself: the process for it did not start (%s)", error)
            return None
        except WorkerLost as error:
            raise RuntimeError(f"the process that keeps the table has ended: {error}") from error
        finally:
            self._running -= 1
            self._rest()
        done = msgspec.msgpack.decode(answer, type=Optimized)
        if done.fault is not None:
            raise RuntimeError(done.fault)
        return done.seconds

    async def _started(self) -> Worker:
        async with self._starting:
            if self.worker is None:
                self.worker = Worker("upkeep", _SERVICE, b"")
                await self.worker.start()
            worker = self.worker
        try:
            await worker.wait_ready(_START_S)
        except WorkerFailed:
            self._stop()  # who asks next may have more luck
            raise
        return worker

    def _rest(self) -> None:
        """End the process once nobody has asked for a while."""
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(self._idle_s, self._end)

    def _end(self) -> None:
        if not self._running:
            self._stop()

    def _stop(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            self._aside(worker.stop(), "ending upkeep")

    def _aside(self, what: Coroutine[Any, Any, object], name: str) -> None:
        task = asyncio.create_task(what, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
