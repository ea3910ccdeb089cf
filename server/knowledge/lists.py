"""An inverted file over vectors in memory: near vectors lie side by side, a query reads few lists. Knows no table.

How many lists a query reads is measured when the file is built, on some of its own vectors, so that recall stands
whether the vectors have clusters or not.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]

_LISTS_PER_ROOT: Final = 2
_SAMPLE_PER_LIST: Final = 16
_ROUNDS: Final = 5
_ASSIGNED_TOGETHER: Final = 8192
_ORDERED_TOGETHER: Final = 32
"""Columns, whose rows are two lines of a processor's cache."""
_TESTS: Final = 256
_TESTS_TOGETHER: Final = 16
_NEIGHBOURS: Final = 10
_RECALL: Final = 0.995
_MARGIN: Final = 1.25
"""Questions lie a little farther from the vectors than these from one another."""
_LEAST_PROBES: Final = 8
_GROUP: Final = 32
_GROUPS_PER_WANTED: Final = 2
_SEED: Final = 5


@dataclass(frozen=True)
class Lists:
    """`vectors` is float32 [n, dimension] of unit length, list by list; `numbers` are their places before."""

    centroids: Matrix
    borders: Numbers
    vectors: Matrix
    numbers: Numbers
    probes: int

    @property
    def reads(self) -> int:
        """About how many floats a search multiplies."""
        return int(self.vectors.size * self.probes / max(1, len(self.centroids))) + self.centroids.size

    def at(self, numbers: Numbers) -> Matrix:
        """The vectors of these numbers."""
        return self.vectors[self._places[numbers]]

    @cached_property
    def _places(self) -> Numbers:
        """Where each number lies."""
        places = np.empty_like(self.numbers)
        places[self.numbers] = np.arange(len(self.numbers))
        return places

    def search(self, vector: Matrix) -> tuple[Numbers, Matrix]:
        """Numbers and cosines of what lies in the nearest lists, in no order."""
        lists = largest(np.vecdot(self.centroids, vector), self.probes)
        lists.sort()
        spans = [(self.borders[each], self.borders[each + 1]) for each in lists.tolist()]
        cosines = [np.vecdot(self.vectors[start:end], vector) for start, end in spans]
        numbers = [self.numbers[start:end] for start, end in spans]
        return np.concatenate(numbers), np.concatenate(cosines)


def build(vectors: Matrix, centroids: Matrix | None = None) -> Lists:
    """Of float32 [n, dimension] of unit length, n at least 1; with `centroids` these are kept. Blocks for seconds.

    It takes `vectors` over and puts them in the order of the lists, for a copy would be most of what a table takes.
    """
    if centroids is None:
        centroids = _centroids(vectors)
    lists = _nearest(vectors, centroids)
    numbers = np.argsort(lists, kind="stable")
    borders = np.concatenate([[0], np.cumsum(np.bincount(lists, minlength=len(centroids)))])
    for at in range(0, vectors.shape[1], _ORDERED_TOGETHER):
        columns = vectors[:, at : at + _ORDERED_TOGETHER]
        columns[:] = columns[numbers]
    return Lists(centroids, borders, vectors, numbers, _probes(vectors, lists[numbers], centroids))


def _centroids(vectors: Matrix) -> Matrix:
    """k-means on the sphere, over a sample."""
    chance = np.random.default_rng(_SEED)
    wanted = min(len(vectors), int(_LISTS_PER_ROOT * len(vectors) ** 0.5))
    sample = vectors[chance.permutation(len(vectors))[: wanted * _SAMPLE_PER_LIST]]
    found = sample[:wanted].copy()
    for _ in range(_ROUNDS):
        lists = _nearest(sample, found)
        order = np.argsort(lists, kind="stable")
        sizes = np.bincount(lists, minlength=wanted)
        filled = sizes > 0  # an empty list stays where it is
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])[filled]
        sums = np.add.reduceat(sample[order], starts, axis=0)
        found[filled] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-12))
    return found


def _nearest(vectors: Matrix, centroids: Matrix) -> Numbers:
    """Of each vector the list it belongs to."""
    steps = range(0, len(vectors), _ASSIGNED_TOGETHER)
    return np.concatenate([(vectors[at : at + _ASSIGNED_TOGETHER] @ centroids.T).argmax(axis=1) for at in steps])


def _probes(vectors: Matrix, lists: Numbers, centroids: Matrix) -> int:
    """The fewest lists in which `_RECALL` of the nearest of some vectors are found."""
    chosen = np.random.default_rng(_SEED).permutation(len(vectors))[:_TESTS]
    depths = [
        _depths(vectors[chosen[at : at + _TESTS_TOGETHER]], vectors, lists, centroids)
        for at in range(0, len(chosen), _TESTS_TOGETHER)
    ]
    needed = float(np.quantile(np.concatenate(depths), _RECALL)) + 1
    return min(len(centroids), max(_LEAST_PROBES, int(np.ceil(needed * _MARGIN))))


def _depths(questions: Matrix, vectors: Matrix, lists: Numbers, centroids: Matrix) -> Numbers:
    """How many other lists lie as near to each question as the list of each of its nearest vectors."""
    count = min(_NEIGHBOURS + 1, len(vectors))  # the first is the question itself
    near = np.argpartition(questions @ vectors.T, len(vectors) - count, axis=1)[:, -count:]
    to_lists = questions @ centroids.T
    own = np.take_along_axis(to_lists, lists[near], axis=1)
    depths: Numbers = (to_lists[:, None, :] >= own[:, :, None]).sum(axis=2).ravel()
    return depths - 1


def largest(values: Matrix, count: int) -> Numbers:
    """Where the `count` largest of [n] stand, in no order; all of them where there are not so many."""
    if count >= len(values):
        return np.arange(len(values))
    # `count` of these maxima are at least their bar, so no value below it is among the largest: one pass instead of the
    # several of a partition.
    groups = len(values) // _GROUP
    if groups <= _GROUPS_PER_WANTED * count:
        return _partitioned(values, count)
    bests = values[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    above = np.flatnonzero(values >= np.partition(bests, groups - count)[groups - count])
    return above[_partitioned(values[above], count)]


def _partitioned(values: Matrix, count: int) -> Numbers:
    return np.argpartition(values, len(values) - count)[len(values) - count :]
