"""The multiplication compiled on this machine (`kernel.cpp`) as nodes of OpenVINO's graphs, and their weights.

Knows matrices and nodes, nothing of decoders. `server.models.openvino_kernel` knows where the library lies.
"""

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino.utils.node_factory import NodeFactory

from server.models.engines.paged.weights import GROUP, Int8, UInt4

Node = Any
"""An OpenVINO node; the package has no types for what its operations return."""

BLOCK = 16
"""Rows of a matrix side by side; outputs come so many at a time."""
_CHUNK = 64 << 20
"""Bytes of memory asked for at once. What is not written of them takes none."""
_ALIGNED = 64


class Kernel:
    """Makes nodes, which know where their weights are: graphs that have such may not outlive this."""

    def __init__(self, library: Path, registers: int | None = None) -> None:
        """`registers` are the most bits of a register to be used, None for all there are.

        Raises RuntimeError where the library cannot be loaded, or has nothing for this processor.
        """
        try:
            library = library.resolve()  # a name without a folder would be looked for elsewhere
            width = int(ctypes.CDLL(str(library)).hearth_kernel_width())
            self._factory = NodeFactory("opset16")
            self._factory.add_extension(str(library))
        except (OSError, AttributeError, RuntimeError) as error:
            raise RuntimeError(f"{library} cannot be loaded: {error}") from error
        if not width:
            raise RuntimeError("this processor has neither AVX2 nor AVX-512")
        self.registers = min(width, registers or width)
        self._chunks: list[mmap.mmap] = []
        self._used = _CHUNK
        self.bytes = 0
        """Of all its weights and scales."""

    def product(
        self,
        state: Node,
        matrices: Sequence[Int8 | UInt4],
        *,
        norm: tuple[NDArray[np.float32], float] | None = None,
        gated: bool = False,
        added: Node | None = None,
    ) -> Node:
        """`state` [..., K] by the rows of `matrices`, one after another, all of one kind: [..., rows].

        `norm`, weights [K] and epsilon, is RMS normalisation of the state before that. With `gated` there are two
        matrices as high as each other, by whole blocks, and the result is silu of the first's times the second's.
        `added` [..., rows] is added to the result.
        """
        rows = sum(map(_rows, matrices))
        values, scales = self._packed(matrices, interleaved=gated)
        told = {
            "columns": matrices[0].scales.shape[1] * GROUP,
            "width": rows // 2 if gated else rows,
            "bits": 4 if isinstance(matrices[0], UInt4) else 8,
            "registers": self.registers,
            "values": values.ctypes.data,
            "scales": scales.ctypes.data,
            "norm": 0,
            "eps": 0.0,
            "gated": gated,
        }
        if norm is not None:
            weights = self._room(norm[0].shape, np.dtype(np.float32))
            weights[:] = norm[0]
            told |= {"norm": weights.ctypes.data, "eps": norm[1]}
        return self._factory.create("QuantisedProduct", [state] if added is None else [state, added], told)

    def _packed(
        self, matrices: Sequence[Int8 | UInt4], *, interleaved: bool
    ) -> "tuple[NDArray[np.uint32], NDArray[np.float16]]":
        """Blocks of 16 rows: values without sign [blocks, groups, n, 16], four columns of a row each, and scales
        [blocks, groups, 16].

        Rows that fill the last block are zeros. Interleaved, a block of the first is followed by one of the second.
        """
        total = sum(map(_rows, matrices))
        values = _bytes(matrices[0]).view(np.uint32)
        _, groups, fours = values.shape
        blocks = -(-total // BLOCK)
        packed = self._room((blocks, groups, fours, BLOCK), np.dtype(np.uint32))
        scales = self._room((blocks, groups, BLOCK), np.dtype(np.float16))
        first = 0
        for at, matrix in enumerate(matrices):
            into = slice(at, None, len(matrices)) if interleaved else slice(None)
            start = 0 if interleaved else first
            _lay(_bytes(matrix).view(np.uint32), packed[into], start)
            _lay(matrix.scales, scales[into, :, None], start)
            first += _rows(matrix)
        if isinstance(matrices[0], Int8):
            packed ^= np.uint32(0x80808080)
        return packed, scales

    def _room(self, size: tuple[int, ...], kind: "np.dtype[Any]") -> "NDArray[Any]":
        """Zeros of that size, in large pages where the system has them: a step reads all of them, and with pages of
        4 KiB looking up where they are takes a quarter of its time."""
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


def _rows(matrix: Int8 | UInt4) -> int:
    return len(matrix.scales)


def _bytes(matrix: Int8 | UInt4) -> "NDArray[Any]":
    return np.ascontiguousarray(matrix.packed if isinstance(matrix, UInt4) else matrix.values)


def _lay(rows: "NDArray[Any]", blocks: "NDArray[Any]", first: int) -> None:
    """Rows [N, groups, n] into [blocks, groups, n, 16] from row `first` on."""
    ahead = min(len(rows), -first % BLOCK)
    if ahead:
        block, place = divmod(first, BLOCK)
        blocks[block, ..., place : place + ahead] = rows[:ahead].transpose(1, 2, 0)
    whole = (len(rows) - ahead) // BLOCK
    start = (first + ahead) // BLOCK
    body = rows[ahead : ahead + whole * BLOCK].reshape(whole, BLOCK, *rows.shape[1:])
    blocks[start : start + whole] = body.transpose(0, 2, 3, 1)
    left = rows[ahead + whole * BLOCK :]
    if len(left):
        blocks[start + whole, ..., : len(left)] = left.transpose(1, 2, 0)
