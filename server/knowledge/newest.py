"""The newest version of a table that lies on a local disk, asked of LanceDB only where its folder changed since.

Every version is a file in one folder, and the folder's time changes with each. A look at it costs microseconds, LanceDB
two hops between threads: a quarter of a short search.
"""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

_TICK_NS = 100_000_000
"""Longer than any kernel's tick: a folder that changes twice within one may bear one time for both."""
_COARSE_TICK_NS = 2_500_000_000
"""The same where a file system keeps whole seconds, or every other."""
_SECOND_NS = 1_000_000_000

_Look = tuple[int, int, int]


class Newest:
    """One table's. `ask` asks LanceDB; `folder` holds a file for each version."""

    def __init__(self, folder: Path, ask: Callable[[], Awaitable[int]], now: Callable[[], int] = time.time_ns) -> None:
        """`now` is the time in nanoseconds, as the file system has it."""
        self._folder = folder
        self._ask = ask
        self._now = now
        self._known: tuple[_Look, int] | None = None

    async def version(self) -> int:
        """What LanceDB would say. Raises what it raises."""
        now = self._now()
        look = self._look()
        if look is not None and self._known is not None and self._known[0] == look:
            return self._known[1]
        self._known = None
        version = await self._ask()
        if look is not None and _has_settled(look[-1], now):
            self._known = look, version
        return version

    def changed(self) -> int:
        """When the folder changed last, in nanoseconds; 0 where it is not there.

        LanceDB tells the time of a version by listing all of them, a tenth of a millisecond each.
        """
        look = self._look()
        return 0 if look is None else look[-1]

    def _look(self) -> _Look | None:
        try:
            found = self._folder.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns


def _has_settled(changed: int, now: int) -> bool:
    """Whether a change from `now` on gives the folder another time; not known of one whose clock is ahead."""
    return now - changed > (_TICK_NS if changed % _SECOND_NS else _COARSE_TICK_NS)
