"""Watches the files of one source and says which changed, once they hold still. Knows no collection."""

import asyncio
import fcntl
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

from watchfiles import awatch

from server.knowledge.sources.files import base_of

log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change

_STEP_MS, _GATHER_MS = 5, 50
_STILL_S, _LONGEST_STILL_S = 0.03, 2.0
"""How long size and time of a file hold still before it is read; longer for one that is written in pieces."""
_LEASE, _SIGNAL = getattr(fcntl, "F_SETLEASE", None), getattr(fcntl, "F_SETSIG", None)
_LOOK_S = 1.0
"""How often the folder itself is looked at: a folder that vanishes or returns sends no event."""
_POLL_MS = 300


class FolderGone(Exception):
    """The folder is not there; the text says so for its owner."""


async def changes(glob: str) -> AsyncIterator[set[Path]]:
    """Sets of paths that changed below the glob's base, each once it holds still; an empty one first.

    The first and every empty set ask for a look at the whole folder. Raises FolderGone, and OSError where the system
    cannot watch. Polls where it has no events, or none left.
    """
    base = base_of(glob)
    identity = await asyncio.to_thread(_identity, base)
    stop = asyncio.Event()
    arrived: asyncio.Queue[set[Path]] = asyncio.Queue()
    watching = asyncio.create_task(_watch(base, "**" in glob or base != Path(glob).parent, arrived, stop))
    try:
        await arrived.get()  # from here on nothing is missed
        yield set()
        async for paths in _settled(base, identity, arrived, watching):
            yield paths
    finally:
        stop.set()
        watching.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await watching


async def gone_for_now(glob: str) -> None:
    """Wait until the folder is back."""
    base = base_of(glob)
    while not await asyncio.to_thread(base.is_dir):  # noqa: ASYNC110  (what is not there sends no event)
        await asyncio.sleep(_LOOK_S)


async def _watch(base: Path, deep: bool, arrived: asyncio.Queue[set[Path]], stop: asyncio.Event) -> None:
    polling = False
    while not stop.is_set():
        try:
            watched = awatch(
                base,
                watch_filter=None,
                debounce=_GATHER_MS,
                step=_STEP_MS,
                stop_event=stop,
                rust_timeout=int(1000 * _LOOK_S),
                yield_on_timeout=True,
                force_polling=polling or None,
                poll_delay_ms=_POLL_MS,
                recursive=deep,
            )
            arrived.put_nowait(set())
            async for events in watched:
                if events:
                    arrived.put_nowait({Path(path) for _, path in events})
            return
        except OSError as error:
            if polling:
                raise
            log.warning("%s: the system has no more file watches (%s); polling instead", base, error)
            polling = True


async def _settled(
    base: Path, identity: tuple[int, int], arrived: asyncio.Queue[set[Path]], watching: asyncio.Task[None]
) -> AsyncIterator[set[Path]]:
    moving: dict[Path, _Moving] = {}
    while True:
        pause = min((each.still_s for each in moving.values()), default=_LOOK_S)
        for path in await _arrived(arrived, pause):
            if path in moving:
                moving[path].again()
            else:
                moving[path] = _Moving(path)
        if watching.done():
            watching.result()
        if await asyncio.to_thread(_identity, base) != identity:
            raise FolderGone(f"{base} is another folder now")
        still = {path for path, each in moving.items() if each.holds_still()}
        if still:
            moving = {path: each for path, each in moving.items() if path not in still}
            yield still


async def _arrived(queue: asyncio.Queue[set[Path]], limit: float) -> set[Path]:
    """All that came until now, or what comes next, or nothing within `limit` seconds."""
    found: set[Path] = set()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit):
            found |= await queue.get()
    while not queue.empty():
        found |= queue.get_nowait()
    return found


class _Moving:
    """A path that something happened to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looks = _looks(path)
        self._since = time.monotonic()
        self.still_s = _STILL_S

    def again(self) -> None:
        """It is written in pieces: be more patient."""
        self.still_s = min(2 * self.still_s, _LONGEST_STILL_S)
        self._since = time.monotonic()

    def holds_still(self) -> bool:
        """Whether it is time to read it: nobody writes to it, or who does has paused."""
        if self.still_s == _STILL_S and _is_closed(self._path):
            return True
        now = _looks(self._path)
        if now != self._looks:
            self._looks = now
            self.again()
        return time.monotonic() - self._since >= self.still_s


def _is_closed(path: Path) -> bool:
    """Whether it is certain that nobody has the file open for writing: then it need not be seen to hold still.

    Linux gives a read lease on no other (fcntl(2), F_SETLEASE). It is given back at once; who opens the file meanwhile
    waits for that, and the signal that tells of it is one that does nothing.
    """
    if _LEASE is None or _SIGNAL is None:
        return False
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(file, _SIGNAL, signal.SIGURG)
        fcntl.fcntl(file, _LEASE, fcntl.F_RDLCK)
    except OSError:  # somebody writes, or it is a folder, another's file, or on a disk that has no leases
        return False
    finally:
        os.close(file)
    return True


def _looks(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _identity(base: Path) -> tuple[int, int]:
    try:
        found = base.stat()
    except OSError as error:
        raise FolderGone(f"{base} does not exist; its documents are kept") from error
    return found.st_dev, found.st_ino
