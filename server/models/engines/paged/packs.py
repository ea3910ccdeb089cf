"""A decoder's quantised matrices as the kernel of this machine has them: each packed once, whoever computes with it."""

from collections.abc import Sequence

from server.models.engines.paged.kernel import BLOCK, Kernel, Packed
from server.models.engines.paged.weights import Float, Int8, Matrix, UInt4, count


class Packs:
    """By the names of matrices and their layer."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._packed: dict[tuple[tuple[str, ...], int | None, bool], Packed | None] = {}

    def pack(
        self, names: Sequence[str], layer: int | None, parts: Sequence[Matrix], *, gated: bool = False
    ) -> Packed | None:
        """Those matrices as one; None where the kernel has nothing for them: all have to be quantised, in one way, and
        those of a gate have whole blocks of rows."""
        key = (tuple(names), layer, gated)
        if key not in self._packed:
            quantised = _alike(parts)
            fits = quantised is not None and not (gated and count(parts[0]) % BLOCK)
            self._packed[key] = self.kernel.packed(quantised, gated=gated) if quantised is not None and fits else None
        return self._packed[key]

    def packed(self, names: Sequence[str], layer: int | None = None, *, gated: bool = False) -> Packed | None:
        """Those that were packed so; None where they were not."""
        return self._packed.get((tuple(names), layer, gated))


def _alike(parts: Sequence[Matrix]) -> list[Int8 | UInt4] | None:
    """The same matrices where all are quantised, and in one way."""
    quantised = [part for part in parts if not isinstance(part, Float)]
    return quantised if len(quantised) == len(parts) and len({type(part) for part in parts}) == 1 else None
