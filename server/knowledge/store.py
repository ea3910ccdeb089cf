"""A collection's table in LanceDB: made or found, written in whole documents, searched, kept compact.

The only module that imports lancedb, and it is imported when a collection opens. A folder holds one table, or several
while a changed recipe is taken over: each has the fingerprint of what its rows were made with, the newest serves.
"""

import asyncio
import functools
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

# LanceDB reports every query plan it finds unusual; set before its first import, which reads it.
os.environ.setdefault("LANCE_LOG", "error")

import lancedb  # after the line above
from lancedb.index import FTS, BTree, IvfRq
from lancedb.query import MatchQuery

from server.knowledge.attributes import Types, columns, quoted, read, written
from server.knowledge.document import AttributeValue, Document
from server.knowledge.rows import HIT_COLUMNS, LIST_COLUMNS, STATE_COLUMNS, restored, rows, schema
from server.knowledge.stored import Cut, Held, Listed, Stored

_NAME = "chunks_"
_FINGERPRINT = b"hearth.fingerprint"
_PROBE = b"hearth.probe"
_SAME_MODEL = 0.99
"""Cosine between one sentence's vectors then and now. Precisions of one model differ by less than 0.001."""
_INDEX_CACHE = 512 * 1024**2
_METADATA_CACHE = 128 * 1024**2
_FRAGMENTS, _UNINDEXED, _COMMITS = 64, 4096, 20
_RETENTION = timedelta(hours=1)
_VECTOR_INDEX_ROWS = 20_000
_QUERY_CHARACTERS = 8192
_IDS_PER_DELETE = 500


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


class Store:
    """Many tasks may read; writes come one at a time. Faults are LanceDB's: OSError, ValueError or RuntimeError."""

    def __init__(self, connection: Any, table: Any, shape: Shape, older: Sequence[str]) -> None:
        self.older = tuple(older)
        """Tables made with another shape, whose documents are not all taken over yet."""
        self._connection = connection
        self._table = table
        self._shape = shape
        self._commits = 0
        self._indexed = False

    @classmethod
    async def open(cls, folder: Path, shape: Shape) -> "Store":
        """The newest table where it has this shape, else a new one beside it. It sees rows as others write them."""
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        connection = await lancedb.connect_async(folder, read_consistency_interval=timedelta(0), session=_session())
        names = await _tables(connection)
        if names:
            table = await connection.open_table(names[-1])
            if _is_shaped(await table.schema(), shape):
                return cls(connection, table, shape, names[:-1])
        number = int(names[-1].removeprefix(_NAME)) + 1 if names else 1
        return cls(connection, await _created(connection, f"{_NAME}{number}", shape), shape, names)

    @property
    def dimension(self) -> int:
        """Of the vectors it holds."""
        return len(self._shape.probe)

    def close(self) -> None:
        self._table.close()
        self._connection.close()

    async def version(self) -> int:
        return int(await self._table.version())

    async def count(self) -> tuple[int, int]:
        """Documents and chunks."""
        documents, chunks = await asyncio.gather(self._table.count_rows("position = 0"), self._table.count_rows())
        return int(documents), int(chunks)

    async def documents(self) -> dict[str, Stored]:
        """Every document by its id."""
        return await _documents(self._table)

    async def listed(self) -> list[Listed]:
        """Every document, in the order of their ids."""
        attributes = self._shape.attributes
        wanted = [*LIST_COLUMNS, *columns(attributes)]
        found, sizes = await asyncio.gather(
            self._table.query().where("position = 0").select(wanted).to_list(),
            self._table.query().select({"document_id": "document_id", "size": "octet_length(text)"}).to_list(),
        )
        held: Counter[str] = Counter()
        for row in sizes:
            held[row["document_id"]] += row["size"] + self._vector_bytes
        listed = [
            Listed(
                id=row["document_id"],
                uri=row["uri"],
                filename=row["filename"],
                title=row["title"],
                attributes=read(row, attributes),
                bytes=held[row["document_id"]],
            )
            for row in found
        ]
        return sorted(listed, key=lambda each: each.id)

    async def held(self, each: str) -> Held | None:
        """One document; None where the table has none of this id."""
        found = await _rows_of(self._table, each)
        if not found:
            return None
        held = sum(len(row["text"].encode()) + self._vector_bytes for row in found)
        return Held(restored(found, self._shape.attributes), len(found), held)

    async def vectors(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """By chunk."""
        if not ids:
            return {}
        condition = ", ".join(quoted(each) for each in ids)
        found = await self._table.query().where(f"id IN ({condition})").select(["id", "vector"]).to_list()
        return {row["id"]: row["vector"] for row in found}

    async def set_attributes(self, each: str, attributes: Mapping[str, AttributeValue]) -> None:
        """Give one document these attributes in place of those it has."""
        await self._table.update(written(attributes, self._shape.attributes), where=f"document_id = {quoted(each)}")
        self._commits += 1

    async def bytes(self) -> int:
        """What the table's rows take on disk."""
        return int((await self._table.stats())["total_bytes"])

    async def replace(self, cuts: Sequence[Cut]) -> None:
        """Put these documents in place of what the table holds of them, in one commit: a reader sees old or new."""
        if not cuts:
            return
        data = await asyncio.to_thread(rows, cuts, self._shape.attributes, self.dimension)
        ids = ", ".join(quoted(cut.document.id) for cut in cuts)
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        await merge.when_not_matched_by_source_delete(f"document_id IN ({ids})").execute(data)
        self._commits += 1

    async def delete(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _IDS_PER_DELETE):
            condition = ", ".join(quoted(each) for each in ids[at : at + _IDS_PER_DELETE])
            await self._table.delete(f"document_id IN ({condition})")
            self._commits += 1

    async def nearest(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """Rows by cosine, nearest first, each with `_distance` (1 - cosine)."""
        query = self._table.vector_search(vector).distance_type("cosine").refine_factor(10)
        query = query.select([*self._hit_columns(), "_distance"]).limit(limit)
        found: pa.Table = await (query.where(where) if where else query).to_arrow()
        return found

    async def matching(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        """Rows by BM25, best first, each with `_score` and its `vector`. Any text will do: it has no syntax.

        None while no words are indexed.
        """
        if not await self._is_indexed():
            return None
        query = self._table.query().nearest_to_text(MatchQuery(text[:_QUERY_CHARACTERS], "indexed"))  # type: ignore[call-arg]  # its other fields have defaults
        query = query.select([*self._hit_columns(), "vector", "_score"]).limit(limit)
        found: pa.Table = await (query.where(where) if where else query).to_arrow()
        return found

    async def maintain(self, *, force: bool = False) -> None:
        """Make indices that are due; compact where writes have piled up. Cheap when nothing is due."""
        chunks = int(await self._table.count_rows())
        if chunks == 0:
            return
        kinds = {index.columns[0]: index for index in await self._table.list_indices()}
        if "indexed" not in kinds:
            # After the first rows: built on an empty table its ranking is off until the next optimize.
            await self._table.create_index("indexed", config=_words(), replace=False)
            for name in ("id", "document_id"):
                await self._table.create_index(name, config=BTree())
        if "vector" not in kinds and chunks >= _VECTOR_INDEX_ROWS:
            await self._table.create_index("vector", config=IvfRq(distance_type="cosine"))
        waiting = kinds["indexed"].num_unindexed_rows if "indexed" in kinds else 0
        fragments = (await self._table.stats())["fragment_stats"]["num_fragments"]
        if force or is_due(fragments, waiting or 0, self._commits):
            await self._table.optimize(cleanup_older_than=_RETENTION)
            self._commits = 0

    async def older_documents(self) -> dict[str, tuple[str, Stored]]:
        """Every document of the older tables by its id, with the newest table that has it."""
        found: dict[str, tuple[str, Stored]] = {}
        for name in self.older:
            held = await _documents(await self._connection.open_table(name))
            found |= {each: (name, stored) for each, stored in held.items()}
        return found

    async def older_document(self, name: str, each: str, attributes: Types) -> Document:
        """One document of an older table, put together from its chunks."""
        return restored(await _rows_of(await self._connection.open_table(name), each), attributes)

    async def drop_older(self) -> None:
        for name in self.older:
            await self._connection.drop_table(name, ignore_missing=True)
        self.older = ()

    async def _is_indexed(self) -> bool:
        """Whether words can be searched; once they can they always can."""
        if not self._indexed:
            self._indexed = any(index.columns == ["indexed"] for index in await self._table.list_indices())
        return self._indexed

    @property
    def _vector_bytes(self) -> int:
        return 4 * self.dimension  # float32

    def _hit_columns(self) -> list[str]:
        return [*HIT_COLUMNS, *columns(self._shape.attributes)]


def is_due(fragments: int, unindexed: int, commits: int) -> bool:
    """Whether compaction is worth rewriting files: never for each batch, always before searches slow down."""
    return fragments >= _FRAGMENTS or unindexed >= _UNINDEXED or commits >= _COMMITS


def _words() -> FTS:
    # icu/split cuts like the simple tokenizer where words have spaces, and by dictionary where they have none; stop
    # words stay, so that a query of nothing else still finds something.
    return FTS(base_tokenizer="icu/split", remove_stop_words=False, stem=True, ascii_folding=True)


async def _rows_of(table: Any, each: str) -> list[dict[str, Any]]:
    """One document's chunks without their vectors."""
    wanted = [name for name in (await table.schema()).names if name not in ("vector", "indexed")]
    found: list[dict[str, Any]] = await table.query().where(f"document_id = {quoted(each)}").select(wanted).to_list()
    return found


async def _documents(table: Any) -> dict[str, Stored]:
    found = await table.query().where("position = 0").select(list(STATE_COLUMNS)).to_list()
    return {row["document_id"]: Stored(*(row[name] for name in STATE_COLUMNS)) for row in found}


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
    table = await connection.create_table(name, schema=like, exist_ok=True)
    # With it two processes that insert one chunk at once conflict, and the second updates it instead.
    await table.set_unenforced_primary_key("id")
    return table
