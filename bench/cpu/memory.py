"""What the cpu bench knows of memory: its bandwidth, the bytes a decoder reads for a token, and what a worker holds."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_FLOATS = 2**28
_PASSES = 7


class Bandwidth:
    """Reads 1 GiB of float32 with all processors at once, each its own part."""

    def __init__(self) -> None:
        self._array = np.ones(_FLOATS, np.float32)
        self._threads = len(os.sched_getaffinity(0))

    def usual(self) -> float:
        """Bytes a second: the median of 7 passes of the fastest of three reductions, since none is so everywhere.

        A median, as what it is compared with: where others share the machine, its memory may be twice as fast in one
        tenth of a second as in the next.
        """
        parts = np.array_split(self._array, self._threads)
        with ThreadPoolExecutor(self._threads) as pool:
            seconds = [median(self._timed(pool, reduce, parts)) for reduce in (_sum, _greatest, _bits)]
        return self._array.nbytes / min(seconds)

    @staticmethod
    def _timed(
        pool: ThreadPoolExecutor, reduce: Callable[[NDArray[np.float32]], object], parts: list[NDArray[np.float32]]
    ) -> list[float]:
        seconds = []
        for _ in range(_PASSES):
            started = time.perf_counter()
            list(pool.map(reduce, parts))
            seconds.append(time.perf_counter() - started)
        return seconds


def _sum(part: NDArray[np.float32]) -> object:
    return part.sum()


def _greatest(part: NDArray[np.float32]) -> object:
    return part.max()


def _bits(part: NDArray[np.float32]) -> object:
    return np.bitwise_or.reduce(part.view(np.int64))


def bytes_per_token(file: Path) -> int:
    """What decoding one token reads of the weights: every tensor of the GGUF file once, as large as the file has it.

    An embedding with a head of its own is left out: one of its rows is read, not all.
    """
    from gguf import GGUFReader

    tensors = {tensor.name: int(tensor.n_bytes) for tensor in GGUFReader(file).tensors}
    if "output.weight" in tensors:
        del tensors["token_embd.weight"]
    return sum(tensors.values())


class Resident(NamedTuple):
    """Bytes a process holds in memory; `mapped` of `total` are pages of files, `most` is the highest total so far."""

    total: int
    mapped: int
    most: int


def resident(pid: int) -> Resident:
    """Of one process, from Linux's /proc/PID/status (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    kilobytes = dict(line.split(":", 1) for line in lines)
    total, mapped, most = (int(kilobytes[name].split()[0]) * 1024 for name in ("VmRSS", "RssFile", "VmHWM"))
    return Resident(total, mapped, most)


def worker(server: int) -> int:
    """The process that computes for the Hearth with the id `server`: its largest child."""
    threads = Path(f"/proc/{server}/task").iterdir()
    children = [int(pid) for each in threads for pid in (each / "children").read_text(encoding="utf-8").split()]
    return max(children, key=lambda pid: resident(pid).total)
