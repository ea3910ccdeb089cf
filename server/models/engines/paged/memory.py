"""Room for large arrays in large pages of the system, where it has them.

A step reads all weights and much of the cache. With pages of 4 KiB, looking up where they are takes a quarter of the
time of reading them.
"""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 64 << 20
"""Bytes of memory asked for at once. What is not written of them takes none."""
_ALIGNED = 64


class Memory:
    """Holds what it gave as long as itself."""

    def __init__(self) -> None:
        self._chunks: list[mmap.mmap] = []
        self._used = _CHUNK
        self.bytes = 0
        """Given so far."""

    def zeros(self, size: tuple[int, ...], kind: "np.dtype[Any]") -> "NDArray[Any]":
        """An array of its own, whose memory is taken when it is written."""
        count = int(np.prod(size))
        octets = count * kind.itemsize
        start = -(-self._used // _ALIGNED) * _ALIGNED
        if not self._chunks or start + octets > len(self._chunks[-1]):
            chunk = mmap.mmap(-1, max(_CHUNK, octets), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                chunk.madvise(mmap.MADV_HUGEPAGE)
            self._chunks.append(chunk)
            start = 0
        self._used = start + octets
        self.bytes += octets
        return np.frombuffer(self._chunks[-1], kind, count, start).reshape(size)
