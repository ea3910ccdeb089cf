"""A table at its newest version as searches see it: answered from memory where that version is there, else from disk.

Where LanceDB has to find the rows, by words or among those of a filter, what is shown of them is from memory all the
same. Writes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.knowledge.attributes import Types, columns
from server.knowledge.hot import Hot
from server.knowledge.leases import Leases
from server.knowledge.newest import Newest
from server.knowledge.reading import Reading
from server.knowledge.snapshot import Snapshot

_INLINE_ROWS = 256
"""Rows that the event loop takes from memory itself, in a tenth of a millisecond; a thread costs more."""

Addresses = NDArray[np.uint64]
T = TypeVar("T")


class HotReading(Reading):
    """`folder` is the table's own, `hot` how many bytes of memory its rows may take."""

    def __init__(self, table: Any, types: Types, dimension: int, leases: Leases, folder: Path, hot: int) -> None:
        super().__init__(table, types, dimension)
        self._hot = Hot(leases.of, self._hit_columns(), hot)
        self._newest = Newest(folder / "_versions", super().version)
        self._filtered: dict[str, str] = {}
        """The attributes' columns that searches filtered by, with their types."""

    async def version(self) -> int:
        """As of every reading; where nobody wrote since it was last asked, it costs microseconds."""
        return await self._newest.version()

    async def stamp(self) -> tuple[int, int]:
        """The newest version and when it came, which tells copies of a table apart that went on by themselves."""
        return await self.version(), self._newest.changed()

    async def nearest(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """As of every reading; with a filter the disk answers, and what is shown is from memory."""
        self._check(vector)
        snapshot = await self._there(where)
        if snapshot is None:
            return await super().nearest(vector, where, limit)
        if where is None:
            return await _searched(snapshot, snapshot.search, vector, limit)
        places = await self._nearest(vector, where, limit, ["_distance"], with_row_id=True)
        found = await _from(snapshot, snapshot.at, places)
        return await super().nearest(vector, where, limit) if found is None else _with_score(found, places)

    async def nearest_places(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """As of every reading, and from memory as `nearest`."""
        self._check(vector)
        snapshot = await self._there(where)
        if snapshot is None or where is not None:
            return await super().nearest_places(vector, where, limit)
        return await _searched(snapshot, snapshot.places, vector, limit)

    async def matching(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        """As of every reading; the disk answers, and what is shown is from memory."""
        if (found := await self._matched(text, where, limit)) is not None:
            snapshot, places, vectors = found
            if (shown := await _from(snapshot, snapshot.at, places)) is not None:
                return _with_score(shown, places).append_column("vector", vectors)
        return await super().matching(text, where, limit)

    async def matching_places(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        """As of every reading; the vectors are from memory."""
        if (found := await self._matched(text, where, limit)) is not None:
            _, places, vectors = found
            return places.append_column("vector", vectors)
        return await super().matching_places(text, where, limit)

    async def rows_at(self, addresses: Sequence[int]) -> pa.Table | None:
        """As of every reading, from memory where they are there."""
        places = pa.table({"_rowid": pa.array(addresses, pa.uint64())})
        if (snapshot := await self._there()) is not None:
            found = await _from(snapshot, snapshot.at, places)
            if found is not None:
                return found.append_column("_rowid", places["_rowid"])
        return await super().rows_at(addresses)

    async def warm(self) -> int:
        """Bring the newest version into memory; answers with the rows that are there, 0 where they do not fit."""
        self._hot.of(await self.version())
        await self._hot.settled()
        return self.hot_rows

    async def cool(self) -> None:
        """Give that memory back, for good."""
        await self._hot.close()

    @property
    def hot_rows(self) -> int:
        """Rows that are searched in memory."""
        return self._hot.snapshot.rows if self._hot.snapshot else 0

    async def _there(self, where: str | None = None) -> Snapshot | None:
        """The newest version, where it is in memory and has rows; a filter is noted."""
        if where is not None:
            self._filtered |= {name: kind for name, kind in columns(self._types).items() if name in where}
        snapshot = self._hot.of(await self.version())
        return snapshot if snapshot is not None and snapshot.rows else None

    async def _matched(
        self, text: str, where: str | None, limit: int
    ) -> "tuple[Snapshot, pa.Table, pa.Array[Any]] | None":
        """Where rows with these words stand, with their vectors from memory; None where that lacks one of them."""
        snapshot = await self._there(where)
        if snapshot is None or not await self.is_indexed():
            return None
        places = await self._matching(text, where, limit, ["_score"], with_row_id=True)
        vectors = await _from(snapshot, snapshot.vectors_at, places)
        return None if vectors is None else (snapshot, places, vectors)


async def _searched(
    snapshot: Snapshot, search: Callable[[NDArray[np.float32], int], T], vector: NDArray[np.float32], limit: int
) -> T:
    unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
    if snapshot.is_quick:
        return search(unit, limit)
    return await asyncio.to_thread(search, unit, limit)


async def _from(snapshot: Snapshot, read: Callable[[Addresses], T | None], places: pa.Table) -> T | None:
    """What `read` gives of the rows at these places; None where there are none, or one is not in memory."""
    if not places.num_rows:
        return None
    addresses = places["_rowid"].to_numpy()
    is_quick = snapshot.is_in_order and len(addresses) <= _INLINE_ROWS
    return read(addresses) if is_quick else await asyncio.to_thread(read, addresses)


def _with_score(found: pa.Table, places: pa.Table) -> pa.Table:
    told = places.drop_columns(["_rowid"])
    return found.append_column(told.field(0), told.column(0))
