"""One writer at a time in a folder, whichever process it is in. Knows not what is written."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_FIRST_WAIT, _LONGEST_WAIT = 0.002, 0.05
_PATIENCE = 120.0


class WriteLock:
    """The lock of `folder`, on a file in it. It is the kernel's: a process that dies lets go of it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "writer.lock"
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Raises TimeoutError, an OSError, where another holds it for minutes."""
        async with self._turn:
            file = await asyncio.to_thread(os.open, self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                await self._take(file)
                yield
            finally:
                os.close(file)  # which unlocks

    async def _take(self, file: int) -> None:
        wait, waited = _FIRST_WAIT, 0.0
        # Asked again and again rather than in a thread that waits: a thread cannot be told to stop waiting.
        while not _taken(file):
            if waited > _PATIENCE:
                raise TimeoutError(f"{self._file} has been locked by another process for {waited:.0f} seconds")
            await asyncio.sleep(wait)
            waited += wait
            wait = min(_LONGEST_WAIT, wait * 2)


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
