"""Documents in cold storage as a backup keeps them: their rows in files of Arrow, and their way back into the table.

Which document is in which file is decided by its id, and a file is named after what is in it. So one whose documents
are still the same is never read from cold storage again.
"""

import asyncio
import hashlib
import importlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.bucket import Bucket
from server.errors import ServiceError
from server.knowledge.catalogue import Entry, cold_counts, cold_entries, forget_cold
from server.knowledge.lock import MOVER, WriteLock
from server.knowledge.record import Records
from server.knowledge.tier import STORE_FAULTS
from server.policies.backup.making import Group, Source

if TYPE_CHECKING:
    import pyarrow as pa

    from server.knowledge.cold import ColdTable

FOLDER = "cold"
_FILE = 8 * 2**20
"""Bytes of texts and vectors that a file should have, at most: its rows are held in memory."""
_IDS = 250
"""Documents that are asked for at once."""


class ColdDocuments:
    """Of the collections of one data directory. Made for one backup by `held`."""

    def __init__(self, data: Path, place: Path | Bucket | None, scratch: Path, runner: asyncio.Runner) -> None:
        self._data = data
        self._place = place
        self._scratch = scratch
        self._runner = runner
        self._stay = False
        self._stack = AsyncExitStack()
        self._tables: dict[str, ColdTable] = {}

    @classmethod
    @contextmanager
    def held(cls, data: Path, place: Path | Bucket | None, scratch: Path) -> "Iterator[ColdDocuments]":
        """`place` is where they are; None where the recipe does not say so any more."""
        with asyncio.Runner() as runner:
            one = cls(data, place, scratch, runner)
            try:
                yield one
            finally:
                runner.run(one._stack.aclose())

    def stay(self) -> None:
        """Until the backup is made, no document moves: one might be missed in both places."""
        if self._stay:
            return
        self._stay = True
        for name in cold_counts(self._data / "state.db"):
            folder = self._data / "knowledge" / name
            if folder.is_dir():
                lock = WriteLock(folder, MOVER)
                self._runner.run(self._stack.enter_async_context(lock.held()))

    def groups(self, database: Path) -> Iterator[Group]:
        """One for each collection. `database` is the copy of state.db that is there once these are asked for files."""
        for name in cold_counts(self._data / "state.db"):
            yield Group(f"knowledge/{name}/{FOLDER}", lambda name=name: self._sources(name, database))  # type: ignore[misc]

    def _sources(self, name: str, database: Path) -> list[Source]:
        entries = cold_entries(database, name)
        found = []
        for part in _parts(entries):
            identity = hashlib.sha256(repr([(each.document, each.digest) for each in part]).encode()).hexdigest()[:40]
            found.append(
                Source(
                    f"knowledge/{name}/{FOLDER}/{identity}.arrow",
                    self._scratch / f"{identity}.arrow",
                    Path(FOLDER, name, identity),
                    make=self._maker(name, part),
                    told=f"{len(part)} documents in cold storage at {self._where}",
                )
            )
        return found

    @property
    def _where(self) -> str:
        return self._place.url if isinstance(self._place, Bucket) else str(self._place)

    def _maker(self, name: str, part: Sequence[Entry]) -> Callable[[Path], None]:
        return lambda file: self._runner.run(self._write(name, part, file))

    async def _write(self, name: str, part: Sequence[Entry], file: Path) -> None:
        """Raises ServiceError where cold storage cannot be read, or does not hold what the record says."""
        if self._place is None:
            raise ServiceError("the recipe does not say any more where that is (policies.tiering.cold)")
        try:
            rows = await self._rows(await self._table(name), part)
        except STORE_FAULTS as fault:
            raise ServiceError(str(fault).splitlines()[0][:300]) from fault
        await asyncio.to_thread(_write, rows, file)

    async def _rows(self, table: "ColdTable", part: Sequence[Entry]) -> "pa.Table":
        room = await asyncio.to_thread(importlib.import_module, "server.knowledge.rows")
        arrow = importlib.import_module("pyarrow")
        ids = [each.document for each in part]
        found = arrow.concat_tables([await table.whole(ids[at : at + _IDS]) for at in range(0, len(ids), _IDS)])
        sums = await asyncio.to_thread(room.digests, found)
        if wrong := [each.stored.uri for each in part if sums.get(each.document) != each.digest]:
            raise ServiceError(f"{wrong[0]} is not there as it was")
        rows: pa.Table = found.sort_by([("document_id", "ascending"), ("position", "ascending")])
        return rows

    async def _table(self, name: str) -> "ColdTable":
        """The cold table of a collection, at one version."""
        if name not in self._tables:
            assert self._place is not None, "else nothing is read"
            folder = self._data / "knowledge" / name
            record = await asyncio.to_thread(Records(folder).read)
            if record is None:
                raise ServiceError("the collection has no table here")
            stores = await asyncio.to_thread(importlib.import_module, "server.knowledge.store")
            cold = await asyncio.to_thread(importlib.import_module, "server.knowledge.cold")
            store = await stores.Store.named(folder, record.serving, hot=0)
            try:
                table: ColdTable | None = await cold.ColdTable.open(self._place, name, store.shape, make=False)
            finally:
                await store.close()
            if table is None:
                raise ServiceError(f"{self._where} lacks them")
            self._stack.push_async_callback(table.close)
            self._tables[name] = table
        return self._tables[name]


def _parts(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries by the first bits of their documents' sums: as many as keep a part small."""
    every = sorted(entries, key=lambda each: each.document)
    bits = (sum(each.listed.bytes for each in every) // _FILE).bit_length()
    parts: dict[int, list[Entry]] = defaultdict(list)
    for each in every:
        parts[int.from_bytes(hashlib.sha256(each.document.encode()).digest()[:8], "big") >> (64 - bits)].append(each)
    return [parts[number] for number in sorted(parts)]


def _write(rows: "pa.Table", file: Path) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    with arrow.OSFile(str(file), "wb") as out, arrow.ipc.new_file(out, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())


# ---- back -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Back:
    """Documents of one collection that lie in its table again."""

    collection: str
    documents: tuple[str, ...]


def bring_back(data: Path) -> list[Back]:
    """Put the rows that a backup kept into the tables of the data directory `data` that nobody uses, and remove the
    files. Where they were is not said in its state.db yet: `forget` does. Blocks."""
    found = []
    for folder in sorted(data.glob(f"knowledge/*/{FOLDER}")):
        record = Records(folder.parent).read()
        if record is not None:  # else this is not the whole of it
            files = sorted(folder.glob("*.arrow"))
            documents = asyncio.run(_bring(files, folder.parent, record.serving))
            found.append(Back(folder.parent.name, documents))
            shutil.rmtree(folder)
    return found


async def _bring(files: list[Path], collection: Path, serving: str) -> tuple[str, ...]:
    arrow: Any = importlib.import_module("pyarrow")
    stores = importlib.import_module("server.knowledge.store")
    store = await stores.Store.named(collection, serving, hot=0)
    documents: set[str] = set()
    try:
        for file in files:
            with arrow.OSFile(str(file)) as opened:
                rows = arrow.ipc.open_file(opened).read_all()
            await store.bring(rows)
            documents.update(rows["document_id"].to_pylist())
    finally:
        await store.close()
    return tuple(sorted(documents))


def forget(back: Iterable[Back], database: Path) -> None:
    """Have state.db say that the local rows of these count; their cold ones go with the next move."""
    if database.exists():
        for each in back:
            forget_cold(database, each.collection, each.documents)
