"""A collection's cold rows: a table of LanceDB in a bucket or a folder, searched with as few requests as can be.

Nothing here decides which rows count: `catalogue` does. Vectors are never read to be compared anew, which would cost a
request each, and the newest version is looked for only when something moved. Faults are LanceDB's.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from config.bucket import Bucket
from server.knowledge import index
from server.knowledge.index import WORDS
from server.knowledge.reading import Reading, among
from server.knowledge.rows import fitted
from server.knowledge.shape import Shape, created, free_name, shape_of, tables
from server.knowledge.text_index import AUTO, TextIndex

_IDS = 500
_RETENTION = timedelta(hours=1)
_PATIENCE = {"timeout": "60s", "connect_timeout": "5s", "client_max_retries": "3", "client_retry_timeout": "30"}
"""By default a store that is gone is waited for for minutes."""
_PROBES = 20
"""Parts of the vector index that are searched: they are in memory after the first search."""


class ColdTable(Reading):
    """The rows of one shape. `moves` is the number of the catalogue's that this handle has seen."""

    def __init__(self, connection: Any, table: Any, shape: Shape, language: str) -> None:
        super().__init__(table, shape.attributes, len(shape.probe))
        self.shape = shape
        self.moves = -1
        self._connection = connection
        self._words = TextIndex(self, table, language)
        self._is_large = self._is_estimated = False

    @classmethod
    async def open(
        cls, place: Path | Bucket, collection: str, shape: Shape, *, make: bool, language: str = AUTO
    ) -> "ColdTable | None":
        """The newest table whose rows are as `shape` says, or with `make` a new one. None where there is none."""
        connection = await _connected(place, collection)
        table = None
        for name in reversed(await tables(connection)):
            table = await connection.open_table(name)
            if shape_of(await table.schema()).is_as(shape):
                break
            table.close()
            table = None
        if table is None and make:
            table = await created(connection, await free_name(connection), shape)
        if table is None:
            connection.close()
            return None
        return cls(connection, table, shape, language)

    async def close(self) -> None:
        self._table.close()
        self._connection.close()

    async def follow(self, moves: int) -> None:
        """See what was written up to this number of the catalogue's; asks nothing where it was seen already."""
        if moves == self.moves:
            return
        await self._table.checkout_latest()
        made = [each for each in await self._table.list_indices() if each.columns == ["vector"]]
        self._is_large = bool(made)
        self._is_estimated = self._is_large and not any(each.num_unindexed_rows for each in made)
        self.moves = moves

    async def nearest(self, vector: NDArray[np.float32], where: str | None, limit: int) -> pa.Table:
        """As of every reading; where an index answers alone, `_distance` is what it estimates."""
        self._check(vector)
        query = self._table.vector_search(vector).distance_type("cosine")
        query = query.nprobes(_PROBES) if self._is_large else query.bypass_vector_index()
        if self._is_large and not self._is_estimated:
            query = query.refine_factor(1)  # or what the index estimates would be ranked among what is exact
        query = query.select([*self._hit_columns(), "_distance"]).limit(limit)
        found: pa.Table = await (query.where(where) if where else query).to_arrow()
        return _of_cosines(found) if self._is_estimated else found

    async def put(self, rows: pa.Table, ids: Sequence[str]) -> None:
        """These rows and no others of these documents, in one commit."""
        merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        fitting = await asyncio.to_thread(fitted, rows, await self.names())
        await merge.when_not_matched_by_source_delete(among(ids)).execute(fitting)

    async def delete(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _IDS):
            await self._table.delete(among(ids[at : at + _IDS]))

    async def settle(self) -> None:
        """Make and refresh indices, join small files; what nobody can be reading any more is removed."""
        made = index.kept(await self._table.list_indices())
        for column, config in index.due(int(await self._table.count_rows()), made, {}).items():
            await self._table.create_index(column, config=config)
        await self._words.make()
        await self._table.optimize(cleanup_older_than=_RETENTION)

    async def indexing(self, config: Any) -> None:
        """Put an index of words in place of the one there is."""
        await self._table.create_index(WORDS, config=config, replace=True)


def _of_cosines(found: pa.Table) -> pa.Table:
    """LanceDB's RaBitQ estimates the squared distance of unit vectors, which is twice what a cosine lacks of 1."""
    halves = pc.divide(found["_distance"], pa.scalar(2, pa.float32()))
    return found.set_column(found.column_names.index("_distance"), "_distance", halves)


async def _connected(place: Path | Bucket, collection: str) -> Any:
    if isinstance(place, Path):
        await asyncio.to_thread((place / collection).mkdir, parents=True, exist_ok=True)
        return await lancedb.connect_async(place / collection)
    return await lancedb.connect_async(f"{place.url}/{collection}", storage_options=_options(place))


def _options(bucket: Bucket) -> dict[str, str]:
    """As LanceDB's object store names them."""
    options = {
        **_PATIENCE,
        "region": bucket.region,
        "aws_virtual_hosted_style_request": str(bucket.virtual_host).lower(),
    }
    if bucket.endpoint is not None:
        options |= {"endpoint": bucket.endpoint, "allow_http": "true"}
    if bucket.access_key is not None and bucket.secret_key is not None:
        options["aws_access_key_id"] = bucket.access_key
        options["aws_secret_access_key"] = bucket.secret_key.get_secret_value()
    return options
