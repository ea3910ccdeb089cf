"""Which documents were written to a table, remembered in eight bytes each. Knows no table."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray


class Written:
    """A set of ids that never changes. It may take an id for another, never one that is there for one that is not."""

    def __init__(self, hashes: NDArray[np.int64] | None = None) -> None:
        """`hashes` are sorted, without repetitions."""
        self._hashes = np.empty(0, np.int64) if hashes is None else hashes

    def has_any(self, ids: Iterable[str]) -> bool:
        return bool(self._has(_hashes(ids)).any())

    def together_with(self, ids: Iterable[str]) -> "Written":
        added = _hashes(ids)
        added = added[~self._has(added)]
        return Written(np.insert(self._hashes, np.searchsorted(self._hashes, added), added))

    def _has(self, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(self._hashes):
            return np.zeros(len(hashes), np.bool_)
        found: NDArray[np.bool_] = self._hashes.take(np.searchsorted(self._hashes, hashes), mode="clip") == hashes
        return found


NOTHING: Final = Written()


def _hashes(ids: Iterable[str]) -> NDArray[np.int64]:
    return np.unique(np.fromiter(map(hash, ids), np.int64))
