"""Reads a collection's table, at the newest version or at an earlier one that stays as it was. Writes nothing.

Faults are LanceDB's: OSError, ValueError or RuntimeError.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pyarrow as pa
from lancedb import connect_async
from lancedb.query import MatchQuery
from numpy.typing import NDArray

from server.knowledge.attributes import Types, columns, quoted, read
from server.knowledge.index import WORDS, words
from server.knowledge.report import IndexState
from server.knowledge.rows import HIT_COLUMNS, LIST_COLUMNS, PACKED, STATE_COLUMNS, restored, unpacked
from server.knowledge.stored import Held, Listed, Stored

_QUERY_CHARACTERS = 8192
_BESIDE = ("text", PACKED)
"""Columns of a hit beside its attributes, where a table has most of them packed."""
_GONE = "Not found"
_PROBES = 40
"""Parts of the vector index that are searched, of some 4,000 rows each: all of them up to 160,000 rows. By default
LanceDB searches 20, which miss a tenth of the nearest of 100,000 vectors without clusters and save too little to be
measured."""
_FEW = 50
_MORE = 8
"""Vectors of the index are coarser, so more are read and compared than are wanted: of up to so many rows twice as many,
beyond that one in so many more. Reading them is most of a deep search."""


class Reading:
    """A table as searches see it. Many tasks may use it at once."""

    def __init__(self, table: Any, types: Types, dimension: int) -> None:
        self.dimension = dimension
        """Of the vectors it holds."""
        self._table = table
        self._types = types
        self._indexed = False
        self._names: list[str] | None = None

    async def names(self) -> list[str]:
        """Of the table's columns."""
        if self._names is None:
            self._names = list((await self._table.schema()).names)
        return self._names

    async def version(self) -> int:
        """The version a read would see now; asking costs a twentieth of a millisecond."""
        return int(await self._table.version())

    async def count(self) -> tuple[int, int]:
        """Documents and chunks."""
        documents, chunks = await asyncio.gather(self._table.count_rows("position = 0"), self._table.count_rows())
        return int(documents), int(chunks)

    async def documents(self, ids: Sequence[str] | None = None) -> dict[str, Stored]:
        """Every document by its id, or those of `ids` that are here."""
        return await documents(self._table, ids)

    async def listed(self) -> list[Listed]:
        """Every document, in the order of their ids."""
        wanted = [*LIST_COLUMNS, *columns(self._types)]
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
                licence=row["licence"],
                attributes=read(row, self._types),
                bytes=held[row["document_id"]],
            )
            for row in found
        ]
        return sorted(listed, key=lambda each: each.id)

    async def held(self, each: str) -> Held | None:
        """One document; None where the table has none of this id."""
        found = await rows_of(self._table, each)
        if not found:
            return None
        held = sum(len(row["text"].encode()) + self._vector_bytes for row in found)
        return Held(restored(found, self._types), len(found), held)

    async def vectors(self, ids: Sequence[str]) -> dict[str, list[float]]:
        """By chunk."""
        if not ids:
            return {}
        condition = ", ".join(quoted(each) for each in ids)
        found = await self._table.query().where(f"id IN ({condition})").select(["id", "vector"]).to_list()
        return {row["id"]: row["vector"] for row in found}

    async def whole(self, ids: Sequence[str]) -> pa.Table:
        """All columns of these documents' rows, in no order."""
        found: pa.Table = await self._table.query().where(among(ids)).to_arrow()
        return found

    async def sample(self, most: int) -> list[tuple[str, str]]:
        """Id and text of at most `most` chunks, evenly from all over the table."""
        chunks = int(await self._table.count_rows())
        places = np.unique(np.linspace(0, chunks - 1, min(chunks, most)).astype(int)).tolist() if chunks else []
        found = await self._table.take_offsets(places).select(["id", "text"]).to_list() if places else []
        return [(row["id"], row["text"]) for row in found]

    async def around(self, ids: Sequence[str], reach: int) -> dict[str, list[dict[str, Any]]]:
        """Of each chunk the rows of its document from `reach` before it to `reach` after it, in their order."""
        condition = ", ".join(quoted(each) for each in ids)
        found = self._table.query().where(f"id IN ({condition})").select(["id", "document_id", "position"])
        places = {row["id"]: (row["document_id"], row["position"]) for row in await found.to_list()}
        if not places:
            return {}
        conditions = [
            f"(document_id = {quoted(document)} AND position BETWEEN {place - reach} AND {place + reach})"
            for document, place in places.values()
        ]
        wanted = ["document_id", "position", "start", "end", "text"]
        rows = await self._table.query().where(" OR ".join(conditions)).select(wanted).to_list()
        rows.sort(key=lambda row: row["position"])
        return {
            key: [row for row in rows if row["document_id"] == document and abs(row["position"] - place) <= reach]
            for key, (document, place) in places.items()
        }

    async def bytes(self) -> int:
        """What the table's rows take on disk."""
        return int((await self._table.stats())["total_bytes"])

    async def nearest(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """Rows by cosine, nearest first, each with `_distance` (1 - cosine).

        Raises ValueError where the vector has another size than the table's or a number that is not finite.
        """
        self._check(vector)
        return await self._hits(lambda wanted: self._nearest(vector, where, limit, [*wanted, "_distance"]))

    async def nearest_places(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """As `nearest`, with each row's address (`_rowid`) in place of what is shown of it."""
        self._check(vector)
        return await self._nearest(vector, where, limit, ["_distance"], with_row_id=True)

    async def matching_places(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        """As `matching`, with each row's address (`_rowid`) in place of what is shown of it."""
        if not await self.is_indexed():
            return None
        return await self._matching(text, where, limit, ["vector", "_score"], with_row_id=True)

    async def rows_at(self, addresses: Sequence[int]) -> pa.Table | None:
        """The hits of these rows in no order, each with its `_rowid`; None where one is not there any more.

        An address names one row for ever: what is written anew, or moved, has another one.
        """

        async def ask(wanted: Sequence[str]) -> pa.Table:
            return await _found(self._table.take_row_ids(list(addresses)).select(list(wanted)).with_row_id())

        found = await self._hits(ask)
        return found if found.num_rows == len(addresses) else None

    async def _hits(self, ask: Callable[[Sequence[str]], Awaitable[pa.Table]]) -> pa.Table:
        """What `ask` finds, told the columns to read, with those of a hit."""
        if PACKED in await self.names():
            found = unpacked(await ask([*_BESIDE, *columns(self._types)]))
            if found is not None:
                return found
        return await ask(self._hit_columns())

    async def _nearest(
        self,
        vector: NDArray[np.float32],
        where: str | None,
        limit: int,
        wanted: Sequence[str],
        with_row_id: bool = False,
    ) -> pa.Table:
        compared, refine = (limit, 2) if limit <= _FEW else (limit + limit // _MORE, 1)
        query = self._table.vector_search(vector).distance_type("cosine").nprobes(_PROBES).refine_factor(refine)
        query = query.select(list(wanted)).limit(compared)
        query = query.with_row_id() if with_row_id else query
        return (await _found(query.where(where) if where else query)).slice(0, limit)

    async def matching(self, text: str, where: str | None, limit: int) -> pa.Table | None:
        """Rows by BM25, best first, each with `_score` and its `vector`. Any text will do: it has no syntax.

        None while no words are indexed.
        """
        if not await self.is_indexed():
            return None
        return await self._hits(lambda wanted: self._matching(text, where, limit, [*wanted, "vector", "_score"]))

    async def _matching(
        self, text: str, where: str | None, limit: int, wanted: Sequence[str], with_row_id: bool = False
    ) -> pa.Table:
        query = self._table.query().nearest_to_text(MatchQuery(text[:_QUERY_CHARACTERS], WORDS))  # type: ignore[call-arg]  # its other fields have defaults
        query = query.select(list(wanted)).limit(limit)
        query = query.with_row_id() if with_row_id else query
        return await _found(query.where(where) if where else query)

    async def scores_among(self, texts: Sequence[str], queries: Sequence[str]) -> NDArray[np.float32]:
        """What the words of each query score for each of `texts`, were they indexed as this table is; 0 for nothing.

        They never touch the disk.
        """
        details = [each.index_details for each in await self._table.list_indices() if each.columns == [WORDS]]
        made: dict[str, Any] = details[0] if details else {}
        connection: Any = await connect_async("memory://")
        rows = pa.table({"place": pa.array(range(len(texts)), pa.int32()), WORDS: pa.array(texts, pa.string())})
        found = np.zeros((len(queries), len(texts)), np.float32)
        with closing(connection), await connection.create_table("texts", rows) as table:
            await table.create_index(WORDS, config=words(made.get("language") if made.get("stem") else None))
            for n, query in enumerate(queries):
                asked = table.query().nearest_to_text(MatchQuery(query, WORDS)).select(["place", "_score"])  # type: ignore[call-arg]  # its other fields have defaults
                hits = await asked.limit(len(texts)).to_arrow()
                found[n, hits["place"].to_numpy()] = hits["_score"].to_numpy()
        return found

    async def indices(self) -> list[IndexState]:
        """In the order of their columns."""
        return await indices(self._table)

    async def is_indexed(self) -> bool:
        """Whether words can be searched; once they can they always can."""
        if not self._indexed:
            self._indexed = any(index.columns == [WORDS] for index in await self._table.list_indices())
        return self._indexed

    def _check(self, vector: NDArray[np.float32]) -> None:
        if vector.shape != (self.dimension,):
            raise ValueError(f"a query's vector should be [{self.dimension}], this one is {list(vector.shape)}")
        if not np.isfinite(vector).all():
            raise ValueError("a query's vector holds numbers that are not finite")

    @property
    def _vector_bytes(self) -> int:
        return 4 * self.dimension  # float32

    def _hit_columns(self) -> list[str]:
        return [*HIT_COLUMNS, *columns(self._types)]


def among(ids: Iterable[str]) -> str:
    """The condition of rows of these documents."""
    return f"document_id IN ({', '.join(map(quoted, ids)) or 'NULL'})"


async def rows_of(table: Any, each: str) -> list[dict[str, Any]]:
    """One document's chunks without their vectors."""
    wanted = [name for name in (await table.schema()).names if name not in ("vector", WORDS, PACKED)]
    found: list[dict[str, Any]] = await table.query().where(f"document_id = {quoted(each)}").select(wanted).to_list()
    return found


async def indices(table: Any) -> list[IndexState]:
    """Those of a table, in the order of their columns."""
    found = [
        IndexState(
            ", ".join(each.columns),
            each.index_type,
            each.num_indexed_rows or 0,
            each.num_unindexed_rows or 0,
            each.index_details.get("language"),
            each.index_details.get("base_tokenizer"),
        )
        for each in await table.list_indices()
    ]
    return sorted(found, key=lambda each: each.column)


async def documents(table: Any, ids: Sequence[str] | None = None) -> dict[str, Stored]:
    """Every document of a table by its id, or those of `ids`; a table of an older layout may lack columns."""
    condition = "position = 0"
    if ids is not None:
        condition += f" AND document_id IN ({', '.join(map(quoted, ids)) or 'NULL'})"
    there = (await table.schema()).names
    wanted = [name for name in STATE_COLUMNS if name in there]
    found = await table.query().where(condition).select(wanted).to_list()
    return {row["document_id"]: Stored(*(row.get(name) for name in STATE_COLUMNS)) for row in found}


async def _found(query: Any) -> pa.Table:
    """Its rows. A version that was cleaned up while it was read is read again at the newest one."""
    # Before each query LanceDB looks through the table's schema for blobs, of which there are none here. Without a
    # table to look at it does not, which saves a fifth of a short query.
    query._table = None
    found: pa.Table
    try:
        found = await query.to_arrow()
    except RuntimeError as error:
        if _GONE not in str(error):
            raise
        found = await query.to_arrow()
    return found
