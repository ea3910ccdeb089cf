"""The multiplication compiled on this machine (`compiled/`) as nodes of OpenVINO's graphs, and its weights.

Knows matrices and nodes, nothing of decoders: what computes one is `decoding`. `server.models.openvino_kernel` knows
where the library lies.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino.utils.node_factory import NodeFactory

from server.models.engines.paged.memory import Memory
from server.models.engines.paged.weights import GROUP, Int8, UInt4

Node = Any
"""An OpenVINO node; the package has no types for what its operations return."""

BLOCK = 16
"""Rows of a matrix side by side; outputs come so many at a time."""


@dataclass(frozen=True)
class Packed:
    """Matrices of one kind, one below another, in the kernel's memory; with `gated` two, whose blocks take turns."""

    values: "NDArray[np.uint32]"
    scales: "NDArray[np.float16]"
    columns: int
    width: int
    """Of what comes out: with a gate half as many as there are rows."""
    bits: int
    gated: bool


class Kernel:
    """Makes nodes, which know where their weights are: graphs that have such may not outlive this."""

    def __init__(self, library: Path, registers: int | None = None) -> None:
        """`registers` are the most bits of a register to be used, None for all there are.

        Raises RuntimeError where the library cannot be loaded, or has nothing for this processor.
        """
        try:
            library = library.resolve()  # a name without a folder would be looked for elsewhere
            self.library = ctypes.CDLL(str(library))
            width = int(self.library.hearth_width())
            self._factory = NodeFactory("opset16")
            self._factory.add_extension(str(library))
        except (OSError, AttributeError, RuntimeError) as error:
            raise RuntimeError(f"{library} cannot be loaded: {error}") from error
        if not width:
            raise RuntimeError("this processor has neither AVX2 nor AVX-512")
        self.registers = min(width, registers or width)
        self._memory = Memory()

    @property
    def bytes(self) -> int:
        """Of all its weights and scales."""
        return self._memory.bytes

    def product(
        self,
        state: Node,
        packed: Packed,
        *,
        norm: "tuple[NDArray[np.float32], float] | None" = None,
        added: Node | None = None,
    ) -> Node:
        """`state` [..., columns] by the rows of matrices: [..., width]; of a gate, silu of the first's times the
        second's.

        `norm`, weights [columns] and epsilon, is RMS normalisation of the state before that. `added` [..., width] is
        added to the result.
        """
        told = {
            "columns": packed.columns,
            "width": packed.width,
            "bits": packed.bits,
            "registers": self.registers,
            "values": packed.values.ctypes.data,
            "scales": packed.scales.ctypes.data,
            "norm": 0 if norm is None else self.vector(norm[0]).ctypes.data,
            "eps": 0.0 if norm is None else norm[1],
            "gated": packed.gated,
        }
        return self._factory.create("QuantisedProduct", [state] if added is None else [state, added], told)

    def vector(self, values: "NDArray[np.float32]") -> "NDArray[np.float32]":
        """The same, in memory that lives as long as this."""
        kept: NDArray[np.float32] = self._memory.zeros(values.shape, np.dtype(np.float32))
        kept[:] = values
        return kept

    def packed(self, matrices: Sequence[Int8 | UInt4], *, gated: bool = False) -> Packed:
        """Matrices of one kind as the kernel reads them. Those of a gate are two as high as each other, by whole
        blocks."""
        rows = sum(map(_rows, matrices))
        values, scales = self._packed(matrices, interleaved=gated)
        columns = matrices[0].scales.shape[1] * GROUP
        bits = 4 if isinstance(matrices[0], UInt4) else 8
        return Packed(values, scales, columns, rows // 2 if gated else rows, bits, gated)

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
        packed = self._memory.zeros((blocks, groups, fours, BLOCK), np.dtype(np.uint32))
        scales = self._memory.zeros((blocks, groups, BLOCK), np.dtype(np.float16))
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
