"""A collection's table in LanceDB: made or found, written in whole documents, searched, kept compact.

LanceDB is imported when a collection opens, and nowhere before. A folder holds one table, or several while one is
built to take another's place (`tables`): each has in its schema what its rows were made with.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from server.knowledge import index
from server.knowledge.attributes import Types, quoted, written
from server.knowledge.document import AttributeValue, digest
from server.knowledge.hot_reading import HotReading
from server.knowledge.leases import Leases
from server.knowledge.lock import InUse, WriteLock
from server.knowledge.maintenance import Measure, tail
from server.knowledge.optimizer import Optimizer
from server.knowledge.reading import Reading, among
from server.knowledge.rows import digests, fitted, rows
from server.knowledge.shape import Shape, connected, created, free_name, shape_of, tables
from server.knowledge.stored import Cut, Stored
from server.knowledge.text_index import AUTO, TextIndex
from server.knowledge.written import NOTHING, Written

_HOT = 512 * 1024**2
_IDS_PER_DELETE = 500
_JOINED_ROWS, _JOINED_BYTES, _JOINED_ROW_BYTES = 16_384, 64 * 1024**2, 2048
"""What is joined at once: rows, bytes, and the bytes of a row beside its vector."""
_LARGE = 2000
"""Rows from which on the table is not worth writing anew for a few."""
_REMEMBERED = 200_000
"""Rows of a table whose ids are read at the first write: of a larger one that would take longer than asking it."""
_CONFLICT, _TRIES = "Retryable commit conflict", 5
_FRAGMENT = np.uint64(32)
"""A row's address is its fragment's number and, in so many bits, its place there."""


class Store(HotReading):
    """Many tasks may read; writes come one at a time. Faults are LanceDB's: OSError, ValueError or RuntimeError."""

    def __init__(self, connection: Any, table: Any, shape: Shape, folder: Path, hot: int, language: str) -> None:
        leases = Leases(connection, table)
        super().__init__(table, shape.attributes, len(shape.probe), leases, folder / f"{table.name}.lance", hot)
        self.shape = shape
        self._connection = connection
        self._folder = folder
        self._lock = WriteLock(folder)
        self._leases = leases
        self._words = TextIndex(self, table, language)
        self._mark: InUse | None = None
        self._commits = 0
        self._written: Written | None = None
        self._guessed: Written | None = None
        self._altered = 0
        """Grows with each write that was more than new rows, and with each of another process that is noticed."""

    @classmethod
    async def open(cls, folder: Path, shape: Shape, *, hot: int = _HOT, language: str = AUTO) -> "Store":
        """The newest table of this shape, else a new one. It sees rows as others write them.

        `hot` is how many bytes of memory its rows may take, `language` what words lose their endings in.
        """
        connection = await connected(folder)
        for name in reversed(await tables(connection)):
            table = await connection.open_table(name)
            if shape_of(await table.schema()).is_as(shape):
                return cls(connection, table, shape, folder, hot, language)
            table.close()
        table = await created(connection, await free_name(connection), shape)
        return cls(connection, table, shape, folder, hot, language)

    @classmethod
    async def named(cls, folder: Path, name: str, *, hot: int = _HOT, language: str = AUTO) -> "Store":
        """One table, whatever its rows were made with; it is not removed before this is closed.

        Raises FileNotFoundError where somebody is removing it just now.
        """
        mark = InUse(folder, name)
        connection = await connected(folder)
        if not await asyncio.to_thread(mark.hold):
            raise FileNotFoundError(f"the table {name} of {folder} is being removed")
        try:
            table = await connection.open_table(name)
            store = cls(connection, table, shape_of(await table.schema()), folder, hot, language)
        except BaseException:
            mark.let_go()
            raise
        store._mark = mark
        return store

    async def close(self) -> None:
        await self.cool()
        self._table.close()
        self._connection.close()
        if self._mark is not None:
            self._mark.let_go()

    @property
    def table(self) -> str:
        """A name for what its rows are made with: documents cut in one way, embedded by one model."""
        return digest(self.shape.fingerprint, " ".join(f"{value:.1f}" for value in self.shape.probe))

    @property
    def name(self) -> str:
        """The table's own, in its folder."""
        return str(self._table.name)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def types(self) -> Types:
        """Of the attributes that its rows hold."""
        return self._types

    @asynccontextmanager
    async def at(self, version: int) -> AsyncIterator[Reading]:
        """The table as it was at an earlier version, kept until the end. Raises InvalidValue where it is gone."""
        async with self._leases.of(version) as table:
            yield Reading(table, self._types, self.dimension)

    async def known(self, ids: Sequence[str] | None = None) -> dict[str, Stored]:
        """As `documents`, for who is about to write: of ids that nobody wrote it is known without a look at the table.

        It waits for writers, which no reader should.
        """
        if ids and self._written is not None:
            async with self._writing():
                is_new = self._written is not None and not self._written.has_any(ids)
            if is_new:
                return {}
        return await self.documents(ids)

    def may_know(self, ids: Iterable[str]) -> bool:
        """Whether one of these may be here: a guess from memory, good enough to save work by, and wrong now and then.

        It is made while others write, and does not hear of other processes.
        """
        return self._guessed is None or self._guessed.has_any(ids)

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Give one document these attributes in place of those it has."""
        columns = written(attributes, self._types)
        if not columns:  # none is declared, so none can be there
            return
        async with self._altering():
            await self._table.update(columns, where=f"document_id = {quoted(each)}")
        self._commits += 1

    async def replace(self, cuts: Sequence[Cut]) -> None:
        """Put these documents in place of what the table holds of them, in one commit: a reader sees old or new.

        Raises ValueError that names a document whose vectors are of another size, or hold what is no number.
        """
        if not cuts:
            return
        data = await asyncio.to_thread(self._rows, cuts, await self.names())
        ids = [cut.document.id for cut in cuts]
        async with self._writing():
            is_here, written = await self._may_have(ids), self._written
            self._written = None  # until it is certain what became of this write
            if is_here:
                there = among(ids)
                merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                try:
                    await merge.when_not_matched_by_source_delete(there).execute(data)
                finally:
                    self._altered += 1
            elif data.num_rows:
                # Nobody else writes meanwhile, and an append costs a fifth of a merge.
                await self._table.add(data)
            self._written = written and written.together_with(ids)
            self._guessed = self._written or self._guessed
        self._commits += 1

    async def delete(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _IDS_PER_DELETE):
            async with self._altering():
                await self._table.delete(among(ids[at : at + _IDS_PER_DELETE]))
            self._commits += 1

    async def take_out(self, same: Mapping[str, str]) -> list[str]:
        """Delete the documents whose rows have still these digests; the ids of those."""
        async with self._altering():
            there = await asyncio.to_thread(digests, await self.whole(list(same)))
            taken = [each for each, digest in same.items() if there.get(each) == digest]
            if taken:
                await self._table.delete(among(taken))
                self._commits += 1
        return taken

    async def bring(self, data: pa.Table) -> list[str]:
        """Put in the rows of those documents that are not here in any version; the ids of those."""
        data = await asyncio.to_thread(fitted, data, await self.names())
        async with self._writing():
            ids: list[Any] = pc.unique(data["document_id"]).to_pylist()
            there = await self.documents(ids)
            brought, written = [each for each in ids if each not in there], self._written
            if brought:
                self._written = None  # until it is certain what became of this write
                await self._table.add(data.filter(pc.is_in(data["document_id"], pa.array(brought, pa.string()))))
                self._written = written and written.together_with(brought)
                self._commits += 1
        return brought

    async def index_words(self) -> None:
        """Make words searchable, once there are some."""
        await self._words.make()

    async def indexing(self, config: Any) -> None:
        """Put an index of words in place of the one there is, which searches use until this one is made."""
        async with self._writing():
            await self._table.create_index(index.WORDS, config=config, replace=True)

    async def measure(self) -> Measure:
        stats, indices, documents = await asyncio.gather(
            self._table.stats(), self._table.list_indices(), self._table.count_rows("position = 0")
        )
        disk, versions = await asyncio.to_thread(_on_disk, self._folder / f"{self._table.name}.lance")
        return Measure(
            rows=stats["num_rows"],
            documents=int(documents),
            fragments=stats["fragment_stats"]["num_fragments"],
            unindexed=max((each.num_unindexed_rows or 0 for each in indices), default=0),
            commits=self._commits,
            versions=versions,
            live=stats["total_bytes"] + sum(each.size_bytes or 0 for each in indices),
            disk=disk,
        )

    async def lacks_index(self) -> bool:
        return bool(await self._due_indices(self._filtered)) or await self.lacks_words()

    async def lacks_words(self) -> bool:
        """Whether there are words, and their index is missing or in another language."""
        return await self._words.due() is not None

    async def tokens(self) -> int:
        """Of all chunks' texts."""
        found = await self._table.query().select(["token_count"]).to_arrow()
        return int(np.sum(found["token_count"].to_numpy()))

    async def compact(self, retention: timedelta, optimizer: Optimizer | None = None) -> float:
        """Join small fragments, make and refresh indices, remove versions that are older and not leased.

        With an `optimizer`, its process does what takes long. Returns the seconds it took; of that process, those of
        a processor.
        """
        commits, began, spent = self._commits, time.monotonic(), None
        await self._words.revise()
        # Of a small table all is written anew in a moment, and without the lock that joining takes.
        if await self._table.count_rows() >= _LARGE:
            await self._join_tail()
        filtered = dict(self._filtered)
        if optimizer is not None:
            spent = await optimizer.optimize(self._folder, self.name, filtered, retention)
        if spent is None:
            await self.optimize(retention, filtered)
        self._commits -= commits
        return time.monotonic() - began if spent is None else spent

    async def optimize(self, retention: timedelta, filtered: Mapping[str, str]) -> None:
        """As `compact`, in this process and without what only the one that writes can do.

        Of `filtered` are the columns that searches filtered by, with their types: some of them get an index.
        """
        for column, config in (await self._due_indices(filtered)).items():
            await self._table.create_index(column, config=config)
        # Once more where a write came between: LanceDB then leaves the table as that write made it.
        for left in reversed(range(_TRIES)):
            try:
                await self._table.optimize(cleanup_older_than=await self._leases.clearing(retention))
                return
            except RuntimeError as error:
                if _CONFLICT not in str(error) or not left:
                    raise

    def _rows(self, cuts: Sequence[Cut], names: Sequence[str]) -> pa.Table:
        for cut in cuts:
            if flaw := cut.flaw(self.dimension):
                raise ValueError(f"{cut.document.uri}: {flaw}")
        return fitted(rows(cuts, self._types, self.dimension), names)

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[None]:
        """The lock. What is remembered of the table is forgotten where another process wrote to it meanwhile."""
        async with self._lock.held() as nobody_else_wrote:
            if not nobody_else_wrote:
                self._written = None
                self._altered += 1
            yield

    @asynccontextmanager
    async def _altering(self) -> AsyncIterator[None]:
        """The lock, for who changes or deletes rows."""
        async with self._writing():
            try:
                yield
            finally:
                self._altered += 1

    async def _may_have(self, ids: Sequence[str]) -> bool:
        """Whether the table has one of these documents; to be asked by who holds the lock.

        It is known without asking the table once its ids were read, as long as nobody else writes to it: then what was
        written since. What was deleted meanwhile may still seem to be there.
        """
        if self._written is None and await self._table.count_rows() <= _REMEMBERED:
            found = await self._table.query().where("position = 0").select(["document_id"]).to_arrow()
            self._written = NOTHING.together_with(found["document_id"].to_pylist())
        if self._written is None:
            return bool(await self._table.count_rows(among(ids)))
        return self._written.has_any(ids)

    async def _due_indices(self, filtered: Mapping[str, str]) -> dict[str, Any]:
        made = index.kept(await self._table.list_indices())
        return index.due(int(await self._table.count_rows()), made, filtered)

    async def _join_tail(self) -> None:
        """Write small fragments anew as one, a part at a time.

        Rows are read while others write, which is most of the work, and once more where some of them were changed.
        Of a large table a small fragment is large by itself, and LanceDB joins what it writes in memory, with a bound.
        """
        small = tail(Counter(_fragments(await self._addresses()).tolist()))
        most = min(_JOINED_ROWS, _JOINED_BYTES // (self._vector_bytes + _JOINED_ROW_BYTES))
        is_left = bool(small)
        while is_left:
            altered, read = self._altered, None
            with suppress(OSError, ValueError, RuntimeError):  # a row that goes meanwhile can be a fault
                read = await self._some_of(small, most)
            async with self._writing():
                if read is None or self._altered != altered:
                    read = await self._some_of(small, most)
                found, is_left = read
                if found.num_rows:
                    await self._table.merge_insert("id").when_matched_update_all().execute(found)

    async def _some_of(self, fragments: Sequence[int], most: int) -> tuple[pa.Table, bool]:
        """The first rows of these fragments, as many as `most`, and whether there are more."""
        addresses = await self._addresses()
        there = np.sort(addresses[np.isin(_fragments(addresses), fragments)])
        found = await self._table.take_row_ids(there[:most].tolist()).to_arrow()
        return found, len(there) > most

    async def _addresses(self) -> NDArray[np.uint64]:
        found = await self._table.query().select([]).with_row_id().to_arrow()
        addresses: NDArray[np.uint64] = found["_rowid"].to_numpy()
        return addresses

    @asynccontextmanager
    async def leased(self) -> AsyncIterator[None]:
        """While the block lasts, no process cleans up the version that is the newest now."""
        async with self._leases.of(int(await self._table.version())):
            yield


def _fragments(addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
    return (addresses >> _FRAGMENT).astype(np.int64)


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
