"""Rows of token ids waiting to be computed: length-sorted batches, short requests before long ones. Knows no model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

_PATIENCE = 8
"""After this many batches that passed it by, a request goes first, however long it is."""

_COMPANY_TOKENS = 512
"""A request with less to do than this takes others' rows along, up to here: many queries at once become one batch."""

_BATCH_TOKENS = 1536
"""About 100 ms of two cores for MiniLM. Batches of 4096 were no faster a token, and make everyone wait 280 ms."""

_LEAST_TOKENS = 128
"""Below this the weights are read from memory too often for what is computed with them."""

_MINILM = 10_616_832
"""The weights a token meets in all-MiniLM-L6-v2, for which the batch was measured."""


class Row(NamedTuple):
    """One input of the request `key`; `place` is where its result belongs there."""

    key: int
    place: int
    ids: list[int]


@dataclass
class _Running:
    """Rows still to do, shortest first, with their place in the request."""

    rows: list[tuple[int, list[int]]]
    passed_by: int = field(default=0)


class Rows:
    """What all requests still have to do; a one-line query does not wait for the end of a bulk request."""

    def __init__(self, weights: int = _MINILM) -> None:
        """`weights` is how many numbers of the model a token is multiplied with: bigger models get smaller batches."""
        self._tokens = max(_LEAST_TOKENS, min(_BATCH_TOKENS, _BATCH_TOKENS * _MINILM // weights))
        self._running: dict[int, _Running] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def add(self, key: int, rows: Iterable[tuple[int, list[int]]]) -> None:
        """`rows` are pairs of place and ids; a place may come more than once."""
        self._running[key] = _Running(sorted(rows, key=lambda row: len(row[1])))

    def drop(self, key: int) -> None:
        self._running.pop(key, None)

    def clear(self) -> None:
        self._running.clear()

    def ended(self, key: int) -> bool:
        """Whether the last row of `key` has been taken; the request is forgotten then."""
        last = not self._running[key].rows
        if last:
            del self._running[key]
        return last

    def take(self) -> list[Row]:
        """The next batch, each request's rows together. Every request in it has to be asked `ended` before the next.

        The most urgent request leads. Others fill a small batch with rows no longer than its own, so that they cost it
        no padding.
        """
        leader, *others = sorted(self._running, key=self._urgency)
        taken = self._taken(leader, next_batch([len(row) for _, row in self._running[leader].rows], self._tokens))
        longest = len(taken[-1].ids)
        for key in others:
            fitting = sum(len(row) <= longest for _, row in self._running[key].rows)
            taken += self._taken(key, min(fitting, max(0, min(_COMPANY_TOKENS, self._tokens) // longest - len(taken))))
        served = {row.key for row in taken}
        for key, running in self._running.items():
            running.passed_by = 0 if key in served else running.passed_by + 1
        return taken

    def _taken(self, key: int, count: int) -> list[Row]:
        running = self._running[key]
        rows, running.rows = running.rows[:count], running.rows[count:]
        return [Row(key, place, row) for place, row in rows]

    def _urgency(self, key: int) -> tuple[bool, int, int]:
        running = self._running[key]
        return running.passed_by < _PATIENCE, len(running.rows), key


def next_batch(lengths: Sequence[int], tokens: int = _BATCH_TOKENS) -> int:
    """How many of the rows, sorted shortest first, fit into one padded batch of `tokens`; at least one."""
    count = 0
    for count, length in enumerate(lengths, start=1):  # the count is the result
        if count > 1 and count * length > tokens:
            return count - 1
    return count
