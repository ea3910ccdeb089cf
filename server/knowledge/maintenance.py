"""Keeps a table quick and small while it is written to: decides by measures, acts in the background, tells its faults.

Knows LanceDB only through what `Kept` offers. Nothing here is needed for right answers: it costs and saves time and
space alone.
"""

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from server.knowledge.optimizer import Optimizer

log = logging.getLogger(__name__)

_FRAGMENTS, _UNINDEXED, _COMMITS = 64, 4096, 20
_RETENTION = timedelta(hours=1)
_PRESSED_RETENTION = timedelta(seconds=10)
"""A search opens the newest version and is done in less; who reads longer holds a lease."""
_GARBAGE_SHARE, _GARBAGE_FLOOR = 0.2, 2 * 1024**2
_SHARE_OF_TIME = 5
"""After a pass rests follow that are this many times as long."""
_SHORTEST_REST = 0.25
_LARGE, _BUSY_S = 2000, 10.0
"""A pass over so many rows, or so soon after another, is worth a process of its own."""
_MANY = 8
"""Writes within that time, after which there will be more of them."""
_BUSY_REST = 4.0
"""After such a pass: each takes time from the writes that go on, and some hundred fragments cost a search little."""
_LAST_PASS = 5.0
_SMALL, _TAIL = 8, 4
"""A small fragment has less than an eighth of the rows, small ones together at most a quarter."""
_FAULTS = (OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Measure:
    """What a table looks like. `live` is in bytes what its newest version needs, `disk` all that lies in its folder."""

    rows: int = 0
    documents: int = 0
    fragments: int = 0
    unindexed: int = 0
    commits: int = 0
    versions: int = 0
    live: int = 0
    disk: int = 0

    @property
    def is_slow(self) -> bool:
        """Whether compaction is worth rewriting files: never for each batch, always before searches slow down."""
        return self.fragments >= _FRAGMENTS or self.unindexed >= _UNINDEXED or self.commits >= _COMMITS

    @property
    def is_bloated(self) -> bool:
        """Whether versions that nobody leases take more room than their history is worth."""
        return self.disk - self.live > _GARBAGE_FLOOR + _GARBAGE_SHARE * self.live

    @property
    def retention(self) -> timedelta:
        """How long earlier versions stay."""
        return _PRESSED_RETENTION if self.is_bloated else _RETENTION


class Kept(Protocol):
    """A table that is kept. Each method may run beside reads and writes, and raises what LanceDB raises."""

    async def measure(self) -> Measure: ...

    async def lacks_index(self) -> bool:
        """Whether an index is due."""
        ...

    async def compact(self, retention: timedelta, optimizer: Optimizer | None = None) -> float:
        """Join small fragments, make and refresh indices, remove versions that are older and not leased.

        With an `optimizer`, its process does what takes long. Returns the seconds it took; of that process, those of
        a processor.
        """
        ...


class Maintenance:
    """A task of its own beside searches and writes, and the last measure and fault for whoever asks."""

    def __init__(self, table: Kept, name: str, optimizer: Optimizer | None = None) -> None:
        """`optimizer` takes what takes long, where the table is large or is written to again and again."""
        self.measure = Measure()
        self.error: str | None = None
        self.failures = 0
        self._table = table
        self._name = name
        self._optimizer = optimizer
        self._compacted = -math.inf
        self._rest = _SHORTEST_REST
        self._latest: deque[float] = deque(maxlen=_MANY)
        self._written = asyncio.Event()
        self._written.set()  # look once at what others left
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"maintenance of {self._name}")

    def wake(self) -> None:
        """Something was written."""
        self._written.set()
        self._latest.append(time.monotonic())
        are_many = len(self._latest) == _MANY and self._latest[-1] - self._latest[0] < _BUSY_S
        if are_many and self._optimizer is not None:
            self._optimizer.expect()

    async def close(self, *, last: bool = True) -> None:
        """Let a pass end that has begun, and make one that is due: this process may have been a short one.

        Without `last` none is made: nobody needs the table any more.
        """
        if self._task is None:
            return
        self._stopped.set()
        woken = self._written.is_set()
        self._written.set()
        _, running = await asyncio.wait([self._task], timeout=_LAST_PASS)
        if running:
            self._task.cancel()
            await asyncio.wait(running)
        elif woken and last:
            await self.keep()
        self._task = None

    async def keep(self) -> None:
        """One pass: measure, and act where it is due."""
        self._written.clear()
        began, waited, rest = time.monotonic(), 0.0, _SHORTEST_REST
        try:
            self.measure = await self._table.measure()
            if self.measure.is_slow or self.measure.is_bloated or await self._table.lacks_index():
                acted, optimizer = time.monotonic(), self._elsewhere()
                rest = _SHORTEST_REST if optimizer is None else _BUSY_REST
                spent = await self._table.compact(self.measure.retention, optimizer)
                self._compacted = time.monotonic()
                waited = self._compacted - acted - spent
                self.measure = await self._table.measure()
            self.error = None
        except _FAULTS as error:
            # It costs speed, not answers, so it is told and tried again.
            self.failures += 1
            self.error = f"maintenance failed: {error}"
            log.warning("collection %s: %s", self._name, self.error)
        self._rest = max(rest, _SHARE_OF_TIME * (time.monotonic() - began - waited))

    def _elsewhere(self) -> Optimizer | None:
        """Who does the next pass, if not this process: to start another for a small one would not be worth it."""
        is_busy = time.monotonic() - self._compacted < _BUSY_S
        return self._optimizer if (is_busy or self.measure.rows >= _LARGE) and not self._stopped.is_set() else None

    async def _run(self) -> None:
        while not self._stopped.is_set():
            await self.keep()
            # Bloat that was too young to be removed is looked at again once it is old enough.
            again = _PRESSED_RETENTION.total_seconds() + 1 if self.measure.is_bloated or self.error else None
            await _first(self._stopped, self._rest)
            await _first(self._written, again)


async def _first(event: asyncio.Event, limit: float | None) -> None:
    """Wait for the event, at most `limit` seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await event.wait()


def tail(sizes: Mapping[int, int]) -> list[int]:
    """Of fragments with their rows, the small ones to join before the table is compacted.

    Compaction joins whatever is smaller than a million rows: with rows that came in singly it would write the whole
    table again each time. Written together anew, they are one fragment apart that compaction leaves alone. Empty once
    they have become so many that a whole new table is worth it.
    """
    total = sum(sizes.values())
    small = [each for each, rows in sizes.items() if rows * _SMALL < total]
    return small if sum(sizes[each] for each in small) * _TAIL <= total else []
