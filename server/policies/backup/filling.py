"""A pack while it is filled: one thread lays block behind block into rooms of memory, another one writes full rooms.

A few rooms are enough, and stay in the processor's caches, so that laying costs little.
"""

import mmap
from collections.abc import Generator
from queue import SimpleQueue

from server.policies.backup import car
from server.policies.backup.cid import Cid

ROOM = 2**21
_ROOMS = 4

Rooms = SimpleQueue["memoryview[int]"]
"""Those that are free; each begins with a page of memory."""


def rooms() -> Rooms:
    free: Rooms = SimpleQueue()
    for _ in range(_ROOMS):
        free.put(memoryview(mmap.mmap(-1, ROOM)))
    return free


class Abandoned(Exception):
    """The pack will not be finished."""


class Filling:
    """One pack, a CAR file of which the first block is the root. One thread calls `add` and `close` and waits while no
    room is free; the other one goes through `pieces`, and calls `let_go` however that ends."""

    def __init__(self, rooms: Rooms) -> None:
        self.size = 0
        """Bytes that are laid."""
        self.blocks: list[tuple[Cid, int, int]] = []
        """Each with where its bytes begin, and how many they are."""
        self.name: str | None = None
        """Once it is closed."""
        self._rooms = rooms
        self._room: memoryview[int] | None = None
        self._filled = 0
        self._full: SimpleQueue[tuple[memoryview[int], int] | None] = SimpleQueue()
        self._is_over = False

    def add(self, cid: Cid, data: "bytes | memoryview[int]") -> None:
        if not self.blocks:
            self._lay(car.header(cid))
        self._lay(car.before(cid, len(data)))
        self.blocks.append((cid, self.size, len(data)))
        self._lay(data)

    def close(self, name: str | None) -> None:
        """Give the rest to be written, under this name; without one the pack is abandoned."""
        self.name = name
        if self._room is not None:
            self._full.put((self._room, self._filled))
        self._full.put(None)

    def pieces(self) -> Generator["memoryview[int]", None, None]:
        """What is laid, in order, each piece until the next one is asked for. Raises Abandoned where the pack is."""
        while (found := self._full.get()) is not None:
            room, count = found
            try:
                yield room[:count]
            finally:
                self._rooms.put(room)
        self._is_over = True
        if self.name is None:
            raise Abandoned

    def let_go(self) -> None:
        """Free the rooms that nobody writes any more, until the pack is closed."""
        while not self._is_over:
            found = self._full.get()
            if found is None:
                self._is_over = True
            else:
                self._rooms.put(found[0])

    def _free(self) -> "memoryview[int]":
        """A room that was written, which takes as long as the place does."""
        return self._rooms.get()

    def _lay(self, data: "bytes | memoryview[int]") -> None:
        done = 0
        while done < len(data):
            if self._room is None:
                self._room, self._filled = self._free(), 0
            count = min(len(data) - done, ROOM - self._filled)
            self._room[self._filled : self._filled + count] = data[done : done + count]
            self._filled += count
            done += count
            if self._filled == ROOM:
                self._full.put((self._room, ROOM))
                self._room = None
        self.size += len(data)
