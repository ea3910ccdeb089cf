"""The multiplication compiled on this machine (`kernel.cpp`) as nodes of OpenVINO's graphs, and its weights.

Knows matrices and nodes, nothing of decoders. Where it lies, and that it is there, is of `server.models.multiplying`.
"""

import ctypes
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino.opset16 as ops
from numpy.typing import NDArray
from openvino.utils.node_factory import NodeFactory

from server.models.engines.paged.weights import Int8, UInt4

Node = Any
"""An OpenVINO node; the package has no types for what its operations return."""

BLOCK = 16
"""Rows of a matrix side by side; outputs come so many at a time."""
_CHUNK = 64 << 20
"""Bytes of memory asked for at once. What is not written of them takes none."""
_ALIGNED = 64


class Kernel:
    """Makes nodes. Their weights stay in memory as long as this lives."""

    def __init__(self, library: Path, registers: int | None = None) -> None:
        """`registers` are the most bits of a register to be used, None for all there are.

        Raises RuntimeError where the library cannot be loaded, or has nothing for this processor.
        """
        try:
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
        inputs = [state, ops.constant(values, shared_memory=True), ops.constant(scales, shared_memory=True)]
        inputs += [] if norm is None else [ops.constant(norm[0])]
        inputs += [] if added is None else [added]
        told = {
            "width": rows // 2 if gated else rows,
            "bits": 4 if isinstance(matrices[0], UInt4) else 8,
            "registers": self.registers,
            "normed": norm is not None,
            "eps": 0.0 if norm is None else norm[1],
            "gated": gated,
            "added": added is not None,
        }
        return self._factory.create("QuantisedProduct", inputs, told)

    def _packed(
        self, matrices: Sequence[Int8 | UInt4], *, interleaved: bool
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Blocks of 16 rows, as bytes [blocks, groups, n]: values without sign by fours of columns, 4 of one row after
        4 of another, and scales in f16.

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
        return packed.view(np.uint8).reshape(blocks, groups, -1), scales.view(np.uint8).reshape(blocks, groups, -1)

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
