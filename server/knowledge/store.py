"""A collection's table in LanceDB: made or found, written in whole documents, searched, kept compact.

LanceDB is imported when a collection opens, and nowhere before. A folder holds one table, or several while a changed
recipe is taken over: each has the fingerprint of what its rows were made with, the newest serves.
"""

import asyncio
import functools
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# LanceDB reports every query plan it finds unusual; set before its first import, which reads it.
os.environ.setdefault("LANCE_LOG", "error")

import lancedb  # after the line above

from server.errors import InvalidValue
from server.knowledge import index
from server.knowledge.attributes import Types, columns, quoted, written
from server.knowledge.document import AttributeValue, Document, digest
from server.knowledge.hot import Hot
from server.knowledge.language import language_of
from server.knowledge.lock import WriteLock
from server.knowledge.maintenance import Measure, tail
from server.knowledge.reading import Reading, documents, rows_of
from server.knowledge.rows import restored, rows, schema
from server.knowledge.stored import Cut, Stored

_NAME = "chunks_"
_FINGERPRINT = b"hearth.fingerprint"
_PROBE = b"hearth.probe"
_SAME_MODEL = 0.99
"""Cosine between one sentence's vectors then and now. Precisions of one model differ by less than 0.001."""
_INDEX_CACHE = 512 * 1024**2
_METADATA_CACHE = 128 * 1024**2
_HOT = 512 * 1024**2
_IDS_PER_DELETE = 500
_READ_FOR_LANGUAGE = 200
_JOINED_ROWS = 16_384
_FRAGMENT = np.uint64(32)
"""A row's address is its fragment's number and, in so many bits, its place there."""
_LEASE = "lease-"
_LONGEST_LEASE = timedelta(hours=1)
_SECOND = timedelta(seconds=1)

_leases = itertools.count()


@functools.cache
def _session() -> lancedb.Session:
    """One for the process: its caches are bounded only when every table shares them."""
    return lancedb.Session(index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE)


@dataclass(frozen=True)
class Shape:
    """What rows are made with. `fingerprint` covers all but the model, `probe` (its vector for one text) that."""

    attributes: Types
    fingerprint: str
    probe: NDArray[np.float32]


class Store(Reading):
    """Many tasks may read; writes come one at a time. Faults are LanceDB's: OSError, ValueError or RuntimeError."""

    def __init__(self, connection: Any, table: Any, shape: Shape, older: Sequence[str], folder: Path, hot: int) -> None:
        super().__init__(table, shape.attributes, len(shape.probe))
        self.older = tuple(older)
        """Tables made with another shape, whose documents are not all taken over yet."""
        self._connection = connection
        self._shape = shape
        self._folder = folder
        self._lock = WriteLock(folder)
        self._commits = 0
        self._filtered: dict[str, str] = {}
        self._hot = Hot(self._leased, self._hit_columns(), hot)

    @classmethod
    async def open(cls, folder: Path, shape: Shape, *, hot: int = _HOT) -> "Store":
        """The newest table where it has this shape, else a new one beside it. It sees rows as others write them.

        `hot` is how many bytes of memory its rows may take.
        """
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        connection = await lancedb.connect_async(folder, read_consistency_interval=timedelta(0), session=_session())
        names = await _tables(connection)
        if names:
            table = await connection.open_table(names[-1])
            if _is_shaped(await table.schema(), shape):
                return cls(connection, table, shape, names[:-1], folder, hot)
        number = int(names[-1].removeprefix(_NAME)) + 1 if names else 1
        table = await _created(connection, f"{_NAME}{number}", shape)
        return cls(connection, table, shape, names, folder, hot)

    async def close(self) -> None:
        await self._hot.close()
        self._table.close()
        self._connection.close()

    @property
    def table(self) -> str:
        """A name for what its rows are made with: documents cut in one way, embedded by one model."""
        return digest(self._shape.fingerprint, " ".join(f"{value:.1f}" for value in self._shape.probe))

    @asynccontextmanager
    async def at(self, version: int) -> AsyncIterator[Reading]:
        """The table as it was at an earlier version, kept until the end. Raises InvalidValue where it is gone."""
        async with self._leased(version) as table:
            yield Reading(table, self._types, self.dimension)

    async def nearest(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """As of every reading; from memory where there is no filter and the newest version is there."""
        if where is not None:
            self._note_filter(where)
            return await super().nearest(vector, where, limit)
        self._check(vector)
        snapshot = self._hot.of(await self.version())
        if snapshot is None or not snapshot.rows:
            return await super().nearest(vector, where, limit)
        unit = vector / max(float(np.linalg.norm(vector)), 1e-12)
        if snapshot.is_quick:
            return snapshot.search(unit, limit)
        return await asyncio.to_thread(snapshot.search, unit, limit)

    async def matching(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        if where is not None:
            self._note_filter(where)
        return await super().matching(text, where, limit)

    async def warm(self) -> int:
        """Bring the newest version into memory; answers with the rows that are there, 0 where they do not fit."""
        self._hot.of(await self.version())
        await self._hot.settled()
        return self.hot_rows

    @property
    def hot_rows(self) -> int:
        """Rows that are searched in memory."""
        return self._hot.snapshot.rows if self._hot.snapshot else 0

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Give one document these attributes in place of those it has."""
        columns = written(attributes, self._types)
        if not columns:  # none is declared, so none can be there
            return
        async with self._lock.held():
            await self._table.update(columns, where=f"document_id = {quoted(each)}")
        self._commits += 1

    async def replace(self, cuts: Sequence[Cut]) -> None:
        """Put these documents in place of what the table holds of them, in one commit: a reader sees old or new.

        Raises ValueError that names a document whose vectors are of another size, or hold what is no number.
        """
        if not cuts:
            return
        for cut in cuts:
            if flaw := cut.flaw(self.dimension):
                raise ValueError(f"{cut.document.uri}: {flaw}")
        data = await asyncio.to_thread(rows, cuts, self._types, self.dimension)
        there = f"document_id IN ({', '.join(quoted(cut.document.id) for cut in cuts)})"
        async with self._lock.held():
            if await self._table.count_rows(there):
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                await merge.when_not_matched_by_source_delete(there).execute(data)
            elif data.num_rows:
                # Nobody else writes meanwhile, and an append costs a fifth of a merge.
                await self._table.add(data)
        self._commits += 1

    async def delete(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _IDS_PER_DELETE):
            condition = ", ".join(quoted(each) for each in ids[at : at + _IDS_PER_DELETE])
            async with self._lock.held():
                await self._table.delete(f"document_id IN ({condition})")
            self._commits += 1

    async def index_words(self) -> None:
        """Make words searchable, once there are some."""
        if await self.is_indexed() or not await self._table.count_rows():
            return
        language = await asyncio.to_thread(language_of, [text for _, text in await self.sample(_READ_FOR_LANGUAGE)])
        async with self._lock.held():
            if not await self.is_indexed():
                await self._table.create_index(index.WORDS, config=index.words(language), replace=False)

    async def measure(self) -> Measure:
        stats, indices = await asyncio.gather(self._table.stats(), self._table.list_indices())
        disk, versions = await asyncio.to_thread(_on_disk, self._folder / f"{self._table.name}.lance")
        return Measure(
            rows=stats["num_rows"],
            fragments=stats["fragment_stats"]["num_fragments"],
            unindexed=max((each.num_unindexed_rows or 0 for each in indices), default=0),
            commits=self._commits,
            versions=versions,
            live=stats["total_bytes"] + sum(each.size_bytes or 0 for each in indices),
            disk=disk,
        )

    async def lacks_index(self) -> bool:
        return bool(await self._due_indices())

    async def compact(self, retention: timedelta) -> None:
        """Join small fragments, make and refresh indices, remove versions that are older and not leased."""
        commits = self._commits
        await self.index_words()
        for column, config in (await self._due_indices()).items():
            await self._table.create_index(column, config=config)
        await self._join_tail()
        await self._table.optimize(cleanup_older_than=await self._unleased(retention))
        self._commits -= commits

    async def older_documents(self) -> dict[str, tuple[str, Stored]]:
        """Every document of the older tables by its id, with the newest table that has it."""
        found: dict[str, tuple[str, Stored]] = {}
        for name in self.older:
            held = await documents(await self._connection.open_table(name))
            found |= {each: (name, stored) for each, stored in held.items()}
        return found

    async def older_document(self, name: str, each: str, attributes: Types) -> Document:
        """One document of an older table, put together from its chunks."""
        return restored(await rows_of(await self._connection.open_table(name), each), attributes)

    async def drop_older(self) -> None:
        for name in self.older:
            await self._connection.drop_table(name, ignore_missing=True)
        self.older = ()

    async def _due_indices(self) -> dict[str, Any]:
        made = {column for each in await self._table.list_indices() for column in each.columns}
        return index.due(int(await self._table.count_rows()), made, self._filtered)

    async def _join_tail(self) -> None:
        """Write small fragments anew as one, a part at a time: nobody else writes while rows are in between."""
        left = set(tail(Counter(_fragments(await self._addresses()).tolist())))
        while left:
            async with self._lock.held():
                addresses = await self._addresses()
                of = _fragments(addresses)
                sizes = Counter(of[np.isin(of, list(left))].tolist())
                part = _first_part(sizes)
                chosen = addresses[np.isin(of, part)].tolist()
                if chosen:
                    found = await self._table.take_row_ids(chosen).to_arrow()
                    await self._table.merge_insert("id").when_matched_update_all().execute(found)
            left = left & sizes.keys() - set(part)

    async def _addresses(self) -> NDArray[np.uint64]:
        found = await self._table.query().select([]).with_row_id().to_arrow()
        addresses: NDArray[np.uint64] = found["_rowid"].to_numpy()
        return addresses

    @asynccontextmanager
    async def _leased(self, version: int) -> AsyncIterator[Any]:
        """A handle on a version that no process cleans up meanwhile. Raises InvalidValue where it is gone already."""
        lease = f"{_LEASE}{int(time.time())}-{os.getpid()}-{next(_leases)}"
        kept = [each["version"] for each in await self._table.list_versions()]
        if version not in kept:
            message = f"Version {version} is not kept; those from {min(kept)} to {max(kept)} are."
            raise InvalidValue(message, param="as_of")
        tags = self._table.tags
        await tags.create(lease, version)
        try:
            table = await self._connection.open_table(self._table.name)
            try:
                await table.checkout(version)
                yield table
            finally:
                table.close()
        finally:
            await tags.delete(lease)

    async def _unleased(self, retention: timedelta) -> timedelta:
        """`retention`, or longer where a version is leased that is older: LanceDB refuses to clean past a tag."""
        tags = await self._table.tags.list()
        for name in [each for each in tags if _is_over(each)]:
            await self._table.tags.delete(name)
            del tags[name]
        leased = {each["version"] for each in tags.values()}
        made: list[datetime] = [
            each["timestamp"] for each in await self._table.list_versions() if each["version"] in leased
        ]
        return max([retention, *(datetime.now() - each + _SECOND for each in made)])  # as LanceDB tells it

    def _note_filter(self, where: str) -> None:
        self._filtered |= {name: kind for name, kind in columns(self._types).items() if name in where}


def _fragments(addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (addresses >> _FRAGMENT).astype(np.int64)


def _first_part(sizes: Mapping[int, int]) -> list[int]:
    """As many fragments as are read together, at least one."""
    part: list[int] = []
    taken = 0
    for each, size in sizes.items():
        if part and taken + size > _JOINED_ROWS:
            break
        part.append(each)
        taken += size
    return part


def _is_over(tag: str) -> bool:
    """Whether a tag is a lease whose reader forgot it, or died."""
    if not tag.startswith(_LEASE):
        return False
    taken = tag.removeprefix(_LEASE).partition("-")[0]
    return time.time() - int(taken) > _LONGEST_LEASE.total_seconds()


def _on_disk(folder: Path) -> tuple[int, int]:
    """Bytes of a table's files, and how many versions there are. Files that vanish meanwhile do not count."""
    total = versions = 0
    for place, _, names in os.walk(folder):
        versions += len(names) if Path(place).name == "_versions" else 0
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total, versions


async def _tables(connection: Any) -> list[str]:
    """Names of the collection's tables, oldest first."""
    names: Iterable[str] = (await connection.list_tables()).tables
    found = [name for name in names if name.startswith(_NAME) and name.removeprefix(_NAME).isdigit()]
    return sorted(found, key=lambda name: int(name.removeprefix(_NAME)))


def _is_shaped(like: pa.Schema, shape: Shape) -> bool:
    """Whether a table's rows are what they would be if they were made now."""
    metadata = like.metadata or {}
    if metadata.get(_FINGERPRINT, b"").decode() != shape.fingerprint:
        return False
    probe = np.array([float(part) for part in metadata.get(_PROBE, b"").split()], np.float32)
    return probe.shape == shape.probe.shape and float(probe @ shape.probe) >= _SAME_MODEL


async def _created(connection: Any, name: str, shape: Shape) -> Any:
    probe = " ".join(f"{value:.6g}" for value in shape.probe)
    metadata: dict[bytes | str, bytes | str] = {_FINGERPRINT: shape.fingerprint, _PROBE: probe}
    like = schema(len(shape.probe), shape.attributes, metadata)
    return await connection.create_table(name, schema=like, exist_ok=True)
