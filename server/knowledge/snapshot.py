"""A table's vectors and hits in memory, as they are in one version of it. Knows not when it is wanted.

Searched exactly while it is small, by way of its coarse form (`coarse`), and in an inverted file (`lists`) once it is
large; what came since either was made is searched exactly beside it. A `Snapshot` never changes, so a search sees one
version whole: no row in none, none twice. Refreshing makes another one, which shares what stayed the same.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.knowledge.coarse import Coarse, coarse
from server.knowledge.lists import Lists, build, largest

Matrix = NDArray[np.float32]
Numbers = NDArray[np.int64]
Addresses = NDArray[np.uint64]

EXACT_ROWS: Final = 20_000
"""Up to so many rows every one is compared; so many more on top of the lists make new ones worth it."""
_LISTS_AGAIN: Final = 4096
_COARSE_ROWS: Final = 2048
"""Fewer are compared at once faster than twice; so many more, or a share of them, are worth a new coarse form."""
_COARSE_SHARE: Final = 8
_PARTS: Final = 64
_BATCH: Final = 8192
_INLINE_FLOATS: Final = 4_000_000
"""What the event loop multiplies itself, in about half a millisecond; a thread costs a fifth of one."""
_CODES_PER_FLOAT: Final = 4
_ROOM: Final = 0.5
_ROW_BYTES: Final = 64
_DEAD: Final = np.float32(-2)
"""Less than any cosine."""
_SMALLEST: Final = np.float32(1e-12)


class TooLarge(Exception):
    """The table does not fit in the memory it may take."""


@dataclass(frozen=True)
class Snapshot:
    """The rows of one version, numbered in the order they came in. `parts` hold their hits, `starts` where each begins.

    Rows below `first` are searched in `lists`, the others in `tail`, float32 [rows, dimension] of unit length, whose
    first rows `coarse` has too.
    """

    version: int
    addresses: Addresses
    alive: NDArray[np.bool_]
    parts: tuple[pa.RecordBatch, ...]
    starts: Numbers
    lists: Lists | None
    first: int
    buffer: Matrix
    coarse: Coarse | None = None

    @property
    def tail(self) -> Matrix:
        return self.buffer[: len(self.addresses) - self.first]

    @property
    def rows(self) -> int:
        return int(self.alive.sum())

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        vectors = self.buffer.nbytes + (self.lists.vectors.nbytes if self.lists else 0)
        vectors += self.coarse.nbytes if self.coarse else 0
        return vectors + sum(part.nbytes for part in self.parts) + _ROW_BYTES * len(self.addresses)

    @property
    def is_quick(self) -> bool:
        """Whether a search is done before a thread would have begun it."""
        coarse = self.coarse.rows * self.tail.shape[1] if self.coarse else 0
        in_lists = self.lists.reads if self.lists else 0
        return self.tail.size - coarse + coarse // _CODES_PER_FLOAT + in_lists <= _INLINE_FLOATS

    @property
    def is_in_order(self) -> bool:
        """Whether `at` has put the addresses in order already, which it does once."""
        return "_in_order" in self.__dict__

    def search(self, vector: Matrix, limit: int) -> pa.Table:
        """Hits by cosine, nearest first, each with `_distance` (1 - cosine). Blocks.

        `vector` is of unit length, `limit` at least 1, and there are rows.
        """
        numbers, distances = self._nearest(vector, limit)
        return self._hits(numbers).append_column("_distance", distances)

    def places(self, vector: Matrix, limit: int) -> pa.Table:
        """As `search`, with each row's address (`_rowid`) in place of its hit."""
        numbers, distances = self._nearest(vector, limit)
        return pa.table({"_rowid": pa.array(self.addresses[numbers]), "_distance": distances})

    def _nearest(self, vector: Matrix, limit: int) -> "tuple[Numbers, pa.Array[Any]]":
        numbers, cosines = self._scored(vector, limit)
        if not self._is_whole:
            cosines[~self.alive[numbers]] = _DEAD
        if limit < len(cosines):
            best = largest(cosines, limit)
            numbers, cosines = numbers[best], cosines[best]
        order = np.argsort(-cosines, kind="stable")
        if not self._is_whole:
            order = order[cosines[order] > _DEAD]
        return numbers[order], pa.array(1 - cosines[order], pa.float32())

    def at(self, addresses: Addresses) -> pa.Table | None:
        """The hits of these rows in their order; None where one is not here. Blocks.

        There is at least one address.
        """
        numbers = self._numbers(addresses)
        return None if numbers is None else self._hits(numbers)

    def vectors_at(self, addresses: Addresses) -> "pa.Array[Any] | None":
        """Their vectors of unit length, as `at` gives hits."""
        numbers = self._numbers(addresses)
        if numbers is None:
            return None
        vectors = np.empty((len(numbers), self.buffer.shape[1]), np.float32)
        in_tail = numbers >= self.first
        vectors[in_tail] = self.tail[numbers[in_tail] - self.first]
        if self.lists is not None:
            vectors[~in_tail] = self.lists.at(numbers[~in_tail])
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])

    def _numbers(self, addresses: Addresses) -> Numbers | None:
        if not len(self.addresses):
            return None
        known, order = self._in_order
        places = np.minimum(np.searchsorted(known, addresses), len(known) - 1)
        return order[places] if bool((known[places] == addresses).all()) else None

    @cached_property
    def _in_order(self) -> tuple[Addresses, Numbers]:
        """Addresses that rise, and their numbers; of an address that two rows had, the row that is there."""
        here = np.flatnonzero(self.alive)
        order = here[np.argsort(self.addresses[here], kind="stable")]
        return self.addresses[order], order

    @cached_property
    def _is_whole(self) -> bool:
        return bool(self.alive.all())

    @cached_property
    def _tail_numbers(self) -> Numbers:
        return np.arange(self.first, len(self.addresses))

    def _scored(self, vector: Matrix, limit: int) -> tuple[Numbers, Matrix]:
        """Rows, among which are the `limit` nearest, with their cosines."""
        if self.coarse is not None and limit * _COARSE_SHARE <= self.coarse.rows:
            known = self.coarse.rows
            near = self.coarse.near(vector, limit, None if self._is_whole else self.alive[:known])
            # Row by row and not as one product, which BLAS would share among threads: on a busy machine it waits.
            cosines = [np.vecdot(self.tail[near], vector), np.vecdot(self.tail[known:], vector)]
            return np.concatenate([near, self._tail_numbers[known:]]), np.concatenate(cosines)
        in_tail = np.vecdot(self.tail, vector)
        if self.lists is None:
            return self._tail_numbers, in_tail
        in_lists = self.lists.search(vector)
        return np.concatenate([in_lists[0], self._tail_numbers]), np.concatenate([in_lists[1], in_tail])

    def _hits(self, numbers: Numbers) -> pa.Table:
        """Rows in the order of `numbers`; taken part by part, for a take over all would first join them."""
        if len(self.parts) == 1:
            return pa.Table.from_batches([self.parts[0].take(pa.array(numbers, pa.int64()))])
        of_part = np.searchsorted(self.starts, numbers, side="right") - 1
        order = np.argsort(of_part, kind="stable")
        taken = [
            self.parts[each].take(pa.array(numbers[of_part == each] - self.starts[each], pa.int64()))
            for each in np.unique(of_part).tolist()
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        joined = pa.Table.from_batches(taken)
        return joined if len(taken) == 1 else joined.take(pa.array(back, pa.int64()))


async def load(table: Any, version: int, columns: Sequence[str], budget: int, lists: Lists | None) -> Snapshot:
    """All rows of `table`, a handle on `version`; where there are `lists` of an earlier one, near its centroids.

    Raises TooLarge where they take more than `budget` bytes.
    """
    count = int(await table.count_rows())
    dimension = (await table.schema()).field("vector").type.list_size
    codes = count * dimension if count <= EXACT_ROWS else 0
    if count * dimension * 4 + codes > budget:
        raise TooLarge
    buffer = np.empty((count, dimension), np.float32)
    parts: list[pa.RecordBatch] = []
    addresses: list[Addresses] = []
    at, taken = 0, buffer.nbytes + codes
    reading = await table.query().select([*columns, "vector"]).with_row_id().to_batches(max_batch_length=_BATCH)
    async for batch in reading:
        await asyncio.to_thread(_copy_units, batch, buffer[at : at + batch.num_rows])
        shown, places = await asyncio.to_thread(_copied, batch, columns)
        addresses.append(places)
        parts.append(shown)
        at += batch.num_rows
        taken += parts[-1].nbytes
        if taken > budget:
            raise TooLarge
    return await asyncio.to_thread(
        _snapshot, version, parts, np.concatenate([*addresses, np.empty(0, np.uint64)]), buffer[:at], lists
    )


async def refreshed(old: Snapshot, table: Any, version: int, columns: Sequence[str], budget: int) -> Snapshot:
    """`old` with what changed up to `version`, read from `table`, a handle on it. Raises TooLarge."""
    found = await table.query().select([]).with_row_id().to_arrow()
    now: Addresses = found["_rowid"].to_numpy()
    alive, added = await asyncio.to_thread(_changes, old, now)
    if len(added) > max(_LISTS_AGAIN, len(now) // 4) or alive.sum() < 0.75 * len(alive):
        return await load(table, version, columns, budget, old.lists)
    batches = []
    for at in range(0, len(added), _BATCH):
        wanted = added[at : at + _BATCH].tolist()
        taken = await table.take_row_ids(wanted).select([*columns, "vector"]).with_row_id().to_arrow()
        batches += taken.combine_chunks().to_batches()
    grown = await asyncio.to_thread(_grown, old, version, alive, batches, columns)
    if grown.bytes > budget:
        raise TooLarge
    return grown


def _changes(old: Snapshot, now: Addresses) -> tuple[NDArray[np.bool_], Addresses]:
    """Which old rows are there now, and the addresses of new ones: a row that is written again has a new address."""
    return old.alive & np.isin(old.addresses, now), np.setdiff1d(now, old.addresses[old.alive])


def _snapshot(
    version: int, parts: list[pa.RecordBatch], addresses: Addresses, vectors: Matrix, lists: Lists | None
) -> Snapshot:
    joined = pa.Table.from_batches(parts).combine_chunks().to_batches() if parts else []
    parts.clear()  # the caller's too, who would keep them in memory until this is done
    alive = np.ones(len(addresses), np.bool_)
    if len(addresses) <= EXACT_ROWS:
        return _coarse(Snapshot(version, addresses, alive, tuple(joined), _starts(joined), None, 0, vectors))
    # Centroids hold while the table has about the size they were made for.
    near = lists is not None and len(addresses) < 2 * len(lists.numbers)
    made = build(vectors, lists.centroids if near and lists is not None else None)
    nothing = np.empty((0, vectors.shape[1]), np.float32)
    return Snapshot(version, addresses, alive, tuple(joined), _starts(joined), made, len(addresses), nothing)


def _grown(
    old: Snapshot, version: int, alive: NDArray[np.bool_], batches: list[pa.RecordBatch], columns: Sequence[str]
) -> Snapshot:
    count = sum(batch.num_rows for batch in batches)
    tail = len(old.tail)
    buffer = old.buffer
    if tail + count > len(buffer):
        buffer = np.empty((int((tail + count) * (1 + _ROOM)), old.buffer.shape[1]), np.float32)
        buffer[:tail] = old.tail
    # Rows of `buffer` behind those of `old` belong to nobody yet: searches in `old` do not read them.
    at = tail
    for batch in batches:
        _copy_units(batch, buffer[at : at + batch.num_rows])
        at += batch.num_rows
    addresses = np.concatenate([old.addresses, *(batch["_rowid"].to_numpy() for batch in batches)])
    parts = [*old.parts, *(_copied(batch, columns)[0] for batch in batches)]
    if len(parts) > _PARTS:
        parts = pa.Table.from_batches(parts).combine_chunks().to_batches()
    alive = np.concatenate([alive, np.ones(count, np.bool_)])
    grown = Snapshot(version, addresses, alive, tuple(parts), _starts(parts), old.lists, old.first, buffer, old.coarse)
    return _listed(grown)


def _listed(grown: Snapshot) -> Snapshot:
    """With its tail in the lists, where that has grown long."""
    tail = len(grown.tail)
    if tail <= (EXACT_ROWS if grown.lists is None else max(_LISTS_AGAIN, grown.first // 20)):
        return _coarse(grown)
    vectors = np.empty((len(grown.addresses), grown.buffer.shape[1]), np.float32)
    if grown.lists is not None:
        vectors[grown.lists.numbers] = grown.lists.vectors
    vectors[grown.first :] = grown.tail
    again = _snapshot(grown.version, list(grown.parts), grown.addresses, vectors, grown.lists)
    return replace(again, alive=grown.alive)


def _coarse(exact: Snapshot) -> Snapshot:
    """With its rows in coarse form, where there are no lists and enough rows that have none yet."""
    known = exact.coarse.rows if exact.coarse else 0
    if exact.lists is not None or len(exact.tail) - known < max(_COARSE_ROWS, known // _COARSE_SHARE):
        return exact
    return replace(exact, coarse=coarse(exact.tail))


def _starts(parts: Sequence[pa.RecordBatch]) -> Numbers:
    return np.cumsum([0, *(part.num_rows for part in parts)], dtype=np.int64)[: max(1, len(parts))]


def _copied(batch: pa.RecordBatch, columns: Sequence[str]) -> tuple[pa.RecordBatch, Addresses]:
    """Columns of a batch and its rows' addresses. A batch of LanceDB's is in memory as a whole while one is held."""
    return batch.select(list(columns)).take(pa.array(range(batch.num_rows))), batch["_rowid"].to_numpy().copy()


def _copy_units(batch: pa.RecordBatch, into: Matrix) -> None:
    column: Any = batch["vector"]
    vectors = column.flatten().to_numpy().reshape(batch.num_rows, -1)
    sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, np.maximum(sizes, _SMALLEST), out=into)
