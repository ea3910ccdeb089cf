"""The hot tier: a collection's newest version in memory, as far as it fits, brought up to date behind the searches.

A search asks for the version it found the table at. Where that is in memory it is answered from there, else LanceDB
answers it and a refresh begins: nobody waits for memory, and nobody is answered from an older version.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from server.errors import HearthError
from server.knowledge.snapshot import Snapshot, TooLarge, load, refreshed

log = logging.getLogger(__name__)

_AGAIN = 60.0
"""Seconds until a table that did not fit is measured again."""

Opened = Callable[[int], AbstractAsyncContextManager[Any]]
"""Opens a handle on a version of the table and keeps that version from being cleaned up."""


class Hot:
    """One collection's place in memory. `budget` is in bytes; with 0 it never takes any."""

    def __init__(self, opened: Opened, columns: Sequence[str], budget: int) -> None:
        self.snapshot: Snapshot | None = None
        self._opened = opened
        self._columns = tuple(columns)
        self._budget = budget
        self._refreshing: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def of(self, version: int) -> Snapshot | None:
        """That version's rows; where they are not in memory, None, and they soon will be."""
        if self.snapshot is not None and self.snapshot.version == version:
            return self.snapshot
        loop = asyncio.get_running_loop()
        is_idle = self._refreshing is None or self._refreshing.done()
        if is_idle and self._budget and loop.time() >= self._not_before:
            self._refreshing = loop.create_task(self._refresh(version), name="hot tier")
        return None

    async def settled(self) -> None:
        """Wait for a refresh that has begun."""
        if self._refreshing is not None:
            await asyncio.wait([self._refreshing])

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        self.snapshot = None

    async def _refresh(self, version: int) -> None:
        old = self.snapshot
        try:
            async with self._opened(version) as table:
                if old is None:
                    self.snapshot = await load(table, version, self._columns, self._budget, None)
                else:
                    self.snapshot = await refreshed(old, table, version, self._columns, self._budget)
        except (TooLarge, MemoryError):
            self.snapshot = None
            self._not_before = asyncio.get_running_loop().time() + _AGAIN
            log.info("a collection is searched on disk: it takes more than its %d bytes of memory", self._budget)
        except (HearthError, OSError, ValueError, RuntimeError) as error:
            # The version is gone already, or the disk is at fault, which the search itself tells: the next one asks
            # again.
            self._not_before = asyncio.get_running_loop().time() + 1
            log.debug("the hot tier stays at an earlier version: %s", error)
