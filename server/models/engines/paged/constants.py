"""Where the constants of a graph live: in a file without a name that is mapped, so that memory can let go of them.

OpenVINO packs most constants into a form of its own when it compiles and never looks at them again, but holds them as
long as the compiled graph. Pages of a mapped file can be dropped meanwhile: who does look reads them from the disk.
Knows nothing of weights and graphs.
"""

import logging
import mmap
import shutil
import tempfile
import weakref
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.models.header import WeightsError

log = logging.getLogger(__name__)

_SPARE = 64 << 20
"""What is left of the disk for everybody else."""
_ALIGNED = 64
"""Bytes that a kernel reads at once."""


class Constants:
    """Keeps arrays alive as long as itself, on the disk where there is a folder for it and its disk allows that."""

    def __init__(self, folder: Path | None, size: int) -> None:
        """`size` is how many bytes will be kept; those beyond it stay in memory, as all do without a folder.

        Raises WeightsError where the disk of `folder` has not as many.
        """
        self._kept: list[NDArray[Any]] = []
        self._folder = folder
        self._opened = None if folder is None else _opened(folder, size)
        self.mapped = 0
        """Bytes that are in the file."""
        if self._opened is not None:
            weakref.finalize(self, self._opened.file.close)

    def keep(self, array: NDArray[Any]) -> NDArray[Any]:
        """The same values, in memory that stays where it is; not to be written to."""
        kept = np.ascontiguousarray(array)
        start = -(-self.mapped // _ALIGNED) * _ALIGNED
        if self._opened is not None and start + kept.nbytes <= len(self._opened.map):
            kept = self._written(self._opened, kept, start)
        self._kept.append(kept)
        return kept

    def _written(self, opened: "_Opened", array: NDArray[Any], start: int) -> NDArray[Any]:
        try:
            # Written and not stored through the mapping: a full disk is an error then, and not a signal.
            opened.file.seek(start)
            opened.file.write(array.data)
            opened.file.flush()
        except OSError as error:
            raise WeightsError(f"{self._folder}: cannot hold the weights while they are in use: {error}") from error
        self.mapped = start + array.nbytes
        return np.frombuffer(opened.map, array.dtype, array.size, start).reshape(array.shape)

    def release(self) -> None:
        """Let go of the memory; what is looked at again comes back from the disk."""
        if self._opened is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._opened.map.madvise(mmap.MADV_DONTNEED)


class _Opened(NamedTuple):
    file: BinaryIO
    map: mmap.mmap


def _opened(folder: Path, size: int) -> _Opened | None:
    # Each array may begin a little later than the one before it ends.
    size += (size >> 6) + mmap.PAGESIZE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < size + _SPARE:
            raise WeightsError(
                f"{folder}: {(size + _SPARE) / 1e9:.1f} GB are needed on this disk while the model is loaded and "
                f"{free / 1e9:.1f} GB are free; make room, or move `data` to a larger disk"
            )
        with ExitStack() as closing:
            file: BinaryIO = closing.enter_context(tempfile.TemporaryFile(dir=folder))
            file.truncate(size)
            found = _Opened(file, mmap.mmap(file.fileno(), size))
            closing.pop_all()
            return found
    except OSError as error:
        log.warning("%s holds no mapped files, so the weights take twice their memory: %s", folder, error)
        return None
