"""Rows of floats to ggml's blocks: by llama.cpp's own code, which the package xllamacpp brings, else by gguf's.

`ggml_quantize_chunk` is ggml.h's public function. The package offers no Python call for it, and its library exports it.
"""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from server.models.header import BLOCKS
from server.models.quantization.fault import QuantizeError

_CHUNK = "ggml_quantize_chunk"


class Quantiser:
    """Quantises on all processors. Without llama.cpp's library it knows the types that gguf knows."""

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="quantise")
        self._chunk = _function()

    @property
    def by(self) -> str:
        """Whose code it is, for the card."""
        return "gguf" if self._chunk is None else "llama.cpp"

    def check(self, kind: GGMLQuantizationType) -> None:
        """Raises QuantizeError where nothing here quantises to `kind`."""
        each, octets = BLOCKS[kind]
        made = self.rows(np.zeros((1, each), np.float32), kind)
        assert made.shape == (1, octets)

    def rows(
        self, values: NDArray[np.float32], kind: GGMLQuantizationType, importance: NDArray[np.float32] | None = None
    ) -> NDArray[np.uint8]:
        """Blocks [N, bytes] of rows [N, K]; K is a whole number of blocks.

        `importance` [K] is how much the error of each column counts: scales are searched for by it, where llama.cpp's
        code is there.
        """
        if self._chunk is None or kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            try:
                plain: NDArray[np.uint8] = gguf.quantize(values, kind).view(np.uint8)
            except NotImplementedError:
                raise QuantizeError(
                    f"{kind.name.lower()} needs llama.cpp's own code, and the installed xllamacpp does not offer it"
                ) from None
            return plain
        values = np.ascontiguousarray(values, np.float32)
        each, octets = BLOCKS[kind]
        count, columns = values.shape
        made = np.empty((count, columns // each * octets), np.uint8)
        share = max(1, -(-count // self._threads))
        weighed = None if importance is None else np.ascontiguousarray(importance, np.float32)
        list(self._pool.map(lambda at: self._part(values, made, kind, at, share, weighed), range(0, count, share)))
        return made

    def _part(
        self,
        values: NDArray[np.float32],
        made: NDArray[np.uint8],
        kind: GGMLQuantizationType,
        start: int,
        count: int,
        weighed: NDArray[np.float32] | None,
    ) -> None:
        # ctypes lets other threads run meanwhile. Addresses are of this part, so that rows are counted from 0.
        part, blocks = values[start : start + count], made[start : start + count]
        weights = None if weighed is None else weighed.ctypes.data
        written = self._chunk(int(kind), part.ctypes.data, blocks.ctypes.data, 0, len(part), part.shape[1], weights)
        assert written == blocks.nbytes, f"llama.cpp wrote {written} bytes for {blocks.nbytes}"

    def close(self) -> None:
        self._pool.shutdown()


def _function() -> Any:
    """None where the library is not there or does not export it."""
    try:
        file = import_module("xllamacpp.xllamacpp").__file__
    except ImportError:
        return None
    try:
        chunk = getattr(ctypes.CDLL(str(file)), _CHUNK)
    except (OSError, AttributeError):
        return None
    size = ctypes.c_int64
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, size, size, size, ctypes.c_void_p]
    chunk.restype = ctypes.c_size_t
    return chunk
