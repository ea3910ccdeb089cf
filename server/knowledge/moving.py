"""Moves documents between a collection's table and cold storage; whatever ends a move, nothing is lost or doubled.

Each step is on record before it is done: rows are written where they go, read back and compared by number and digest;
then the record says that those count; then the others are deleted, unless they changed meanwhile. One process moves at
a time, while others may search and write.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from server.errors import ServiceError
from server.knowledge.attributes import Types, read
from server.knowledge.catalogue import Catalogue, Entry
from server.knowledge.lock import MOVER, WriteLock
from server.knowledge.rows import LIST_COLUMNS, STATE_COLUMNS, digests
from server.knowledge.stored import Listed, Stored

if TYPE_CHECKING:
    import pyarrow as pa

    from server.knowledge.cold import ColdTable
    from server.knowledge.store import Store


@dataclass(frozen=True)
class Moved:
    """What was moved; `bytes` are of texts and vectors. `kept` are documents that changed while they moved."""

    documents: int = 0
    chunks: int = 0
    bytes: int = 0
    kept: int = 0

    def __add__(self, other: "Moved") -> "Moved":
        return Moved(
            self.documents + other.documents,
            self.chunks + other.chunks,
            self.bytes + other.bytes,
            self.kept + other.kept,
        )


class Mover:
    """Moves documents of one collection. Raises ServiceError where a copy is not what was written, or what the store,
    the cold table or the catalogue raises: `mend` finishes or undoes what was begun."""

    def __init__(self, store: "Store", cold: "ColdTable", catalogue: Catalogue) -> None:
        self._store = store
        self._cold = cold
        self._catalogue = catalogue
        self._lock = WriteLock(store.folder, MOVER)

    async def cool(self, ids: Sequence[str], now: float) -> Moved:
        """Move documents from the table to cold storage."""
        async with self._lock.held():
            return await self._cool(ids, now)

    async def _cool(self, ids: Sequence[str], now: float) -> Moved:
        rows = await self._store.whole(ids)
        entries = await asyncio.to_thread(_entries, rows, self._store.types, now)
        if not entries:
            return Moved()
        await self._catalogue.begin(list(entries.values()))
        await self._cold.put(rows, list(entries))
        await self._compare(entries)
        counting = await self._catalogue.cooled(list(entries))
        taken = set(await self._store.take_out({each: entries[each].digest for each in counting}))
        # What changed since it was read: the local rows count again.
        await self._catalogue.forget([each for each in entries if each not in taken])
        await self._clear()
        return _moved([entries[each] for each in taken], len(entries) - len(taken))

    async def warm(self, ids: Sequence[str]) -> Moved:
        """Move documents from cold storage back into the table."""
        async with self._lock.held():
            return await self._warm(ids)

    async def _warm(self, ids: Sequence[str]) -> Moved:
        turned = await self._catalogue.warming(ids)
        entries = {each.document: each for each in await self._catalogue.entries("warming") if each.document in turned}
        if not entries:
            return Moved()
        await self._compare(entries)
        await self._store.bring(await self._cold.whole(list(entries)))
        back = await self._arrived(entries)
        await self._clear()
        return _moved([entries[each] for each in back], len(entries) - len(back))

    async def mend(self) -> int:
        """Finish or undo what an earlier move left; how many documents that were."""
        async with self._lock.held():
            return await self._mend()

    async def _mend(self) -> int:
        cooling = await self._catalogue.entries("cooling")
        await self._catalogue.forget([each.document for each in cooling])
        cold = {each.document: each for each in await self._catalogue.entries("cold")}
        there = await self._store.documents(list(cold)) if cold else {}
        taken = await self._store.take_out({each: cold[each].digest for each in there}) if there else []
        await self._catalogue.forget([each for each in there if each not in taken])
        warming = {each.document: each for each in await self._catalogue.entries("warming")}
        if warming:
            arrived = await self._store.documents(list(warming))
            await self._catalogue.unwarmed([each for each in warming if each not in arrived])
            await self._arrived({each: warming[each] for each in arrived})
        gone = await self._clear()
        return len({*(each.document for each in cooling), *there, *warming, *gone})

    async def _arrived(self, entries: Mapping[str, Entry]) -> list[str]:
        """Let the local rows count of those documents whose rows are the same in both places; their ids."""
        local = await asyncio.to_thread(digests, await self._store.whole(list(entries)))
        same = [each for each, entry in entries.items() if local.get(each) == entry.digest]
        left = await self._catalogue.left(same)
        # Somebody took it out while it was being brought back.
        await self._store.take_out({each: entries[each].digest for each in same if each not in left})
        await self._catalogue.forget([each for each in entries if each in local and each not in same])
        return left

    async def _compare(self, entries: Mapping[str, Entry]) -> None:
        back = await self._cold.whole(list(entries))
        found = await asyncio.to_thread(digests, back)
        wrong = [each for each, entry in entries.items() if found.get(each) != entry.digest]
        chunks = sum(entry.chunks for entry in entries.values())
        if wrong or back.num_rows != chunks:
            uri = entries[wrong[0]].stored.uri if wrong else "a document"
            raise ServiceError(
                f"Cold storage gives back {uri} otherwise than it was written ({back.num_rows} of {chunks} chunks), so "
                "nothing was deleted."
            )

    async def _clear(self) -> list[str]:
        """Delete the cold rows that count no more."""
        gone = [each.document for each in await self._catalogue.entries("gone")]
        if gone:
            await self._cold.delete(gone)
            await self._catalogue.drop(gone)
        return gone


def _moved(entries: Sequence[Entry], kept: int) -> Moved:
    return Moved(len(entries), sum(each.chunks for each in entries), sum(each.listed.bytes for each in entries), kept)


def _entries(found: "pa.Table", types: Types, now: float) -> dict[str, Entry]:
    """What goes on record of documents, from all their rows."""
    sums = digests(found)
    vectors = 4 * found["vector"].type.list_size
    rows: list[dict[str, Any]] = found.drop_columns(["vector", "indexed"]).to_pylist()
    rows.sort(key=lambda row: (row["document_id"], row["position"]))
    entries = {}
    for document, group in groupby(rows, key=lambda row: str(row["document_id"])):
        chunks = list(group)
        first = chunks[0]
        size = sum(len(row["text"].encode()) + vectors for row in chunks)
        of_list = {name: first[name] for name in LIST_COLUMNS if name != "document_id"}
        listed = Listed(id=document, **of_list, attributes=read(first, types), bytes=size)
        stored = Stored(*(first[name] for name in STATE_COLUMNS))
        entries[document] = Entry(document, "cooling", sums[document], len(chunks), now, stored, listed)
    return entries
