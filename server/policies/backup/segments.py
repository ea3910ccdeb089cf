"""Files in segments, read and summed as a whole by a thread beside whoever takes them.

Two threads that compute keep two cores busy; more of them would wait for the interpreter's lock most of the time.
"""

import mmap
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Protocol

from server.policies.backup.unixfs import LEAF

SEGMENT = 8 * LEAF
"""Bytes of every segment but a file's last one: what a core's own cache holds twice at most."""

_AHEAD = 6
"""Segments that are held at once."""

_Filled = tuple["memoryview[int]", int]


class Sum(Protocol):
    """A sum of hashlib's."""

    def update(self, data: "memoryview[int]", /) -> None: ...


class Reader:
    """Reads one file at a time, ahead of whoever takes its segments. Its buffers are used again and again: fresh memory
    costs more than reading into it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self._free: SimpleQueue[memoryview[int]] = SimpleQueue()
        for _ in range(_AHEAD):
            self._free.put(memoryview(mmap.mmap(-1, SEGMENT)))

    def close(self) -> None:
        self._thread.shutdown(wait=True)

    def segments(self, path: Path, whole: Sum) -> Generator["memoryview[int]", None, None]:
        """The file's bytes in order, each segment the caller's until the next one is asked for; the last one is shorter
        than the others, and may be empty. At the end `whole` has had them all. Raises OSError."""
        filled: SimpleQueue[_Filled | None] = SimpleQueue()
        over = Event()
        reading = self._thread.submit(self._read, path, whole, filled, over)
        buffer = None
        try:
            while (found := filled.get()) is not None:
                buffer, count = found
                yield buffer[:count]
                self._free.put(buffer)
                buffer = None
        finally:
            over.set()
            if buffer is not None:  # the caller went in the middle
                self._free.put(buffer)
                while (found := filled.get()) is not None:
                    self._free.put(found[0])
        reading.result()

    def _read(self, path: Path, whole: Sum, filled: "SimpleQueue[_Filled | None]", over: Event) -> None:
        try:
            with path.open("rb", buffering=0) as file:
                count = SEGMENT
                while count == SEGMENT and not over.is_set():
                    buffer = self._free.get()
                    try:
                        count = _fill(buffer, file)
                    except OSError:
                        self._free.put(buffer)
                        raise
                    filled.put((buffer, count))
                    # It comes back to be filled again by this thread alone, which has summed it by then.
                    whole.update(buffer[:count])
        finally:
            filled.put(None)


def _fill(buffer: "memoryview[int]", file: FileIO) -> int:
    """Bytes read: as many as there is room for, but at the end of the file."""
    filled = 0
    while filled < len(buffer) and (count := file.readinto(buffer[filled:])):
        filled += count
    return filled
