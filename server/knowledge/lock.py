"""Locks in a folder, whichever process holds them: one writer at a time, many users of a table. Knows no table.

Files are opened where they are asked for: that takes microseconds, and a thread for it longer, three times a commit.
"""

import asyncio
import fcntl
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

MOVER = "mover.lock"
"""Whoever holds this file of a collection's folder moves its documents to cold storage, or keeps them in place."""
_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.05
_PATIENCE = 120.0


class WriteLock:
    """The lock of `folder`, on a file in it. It is the kernel's: a process that dies lets go of it."""

    def __init__(self, folder: Path, name: str = "writer.lock") -> None:
        self._file = folder / name
        self._turn = asyncio.Lock()
        self._name = uuid.uuid4().bytes

    @asynccontextmanager
    async def held(self) -> AsyncIterator[bool]:
        """Says whether it was this lock that held it last, so that nobody else wrote since.

        Raises TimeoutError, an OSError, where another holds it for minutes.
        """
        async with self._turn:
            file = _opened(self._file)
            try:
                await _patiently(file, fcntl.LOCK_EX, self._file)
                was_here = os.pread(file, len(self._name), 0) == self._name
                if not was_here:
                    os.pwrite(file, self._name, 0)
                yield was_here
            finally:
                os.close(file)  # which unlocks


class SwitchLock:
    """Held together by all who write, and alone by who puts another table in the place of the one that serves."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "switch.lock"

    @asynccontextmanager
    async def held(self, *, alone: bool) -> AsyncIterator[None]:
        """Raises TimeoutError, an OSError, where others hold it for minutes."""
        file = _opened(self._file)
        try:
            await _patiently(file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, self._file)
            yield
        finally:
            os.close(file)  # which unlocks


class InUse:
    """A table's mark that somebody has it open. Blocks for microseconds."""

    def __init__(self, folder: Path, table: str) -> None:
        self._place = folder / f"{table}.used"
        self._file: int | None = None

    def hold(self) -> bool:
        """False where somebody is removing the table."""
        self._file = _opened(self._place)
        if _taken(self._file, fcntl.LOCK_SH):
            return True
        self.let_go()
        return False

    def hold_alone(self) -> bool:
        """For its removal; False where anybody has it open."""
        self._file = _opened(self._place)
        if _taken(self._file, fcntl.LOCK_EX):
            return True
        self.let_go()
        return False

    def let_go(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """With the table, while it is held alone."""
        self._place.unlink(missing_ok=True)
        self.let_go()


def _opened(place: Path) -> int:
    return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


async def _patiently(file: int, kind: int, place: Path) -> None:
    wait, waited = _FIRST_WAIT, 0.0
    # Asked again and again rather than in a thread that waits: a thread cannot be told to stop waiting.
    while not _taken(file, kind):
        if waited > _PATIENCE:
            raise TimeoutError(f"{place} has been locked by another process for {waited:.0f} seconds")
        await asyncio.sleep(wait)
        waited += wait
        wait = min(_LONGEST_WAIT, wait * 2)


def _taken(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
