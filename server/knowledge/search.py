"""One search over a store: the legs, their fusion, and rows as hits. Knows no recipe."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidValue
from server.knowledge.attributes import Types, read
from server.knowledge.document import Hit
from server.knowledge.fuse import of_bm25, of_cosine, weighted_sum

if TYPE_CHECKING:
    import pyarrow as pa

    from server.knowledge.store import Store

Mode = Literal["vector", "text", "hybrid"]
Row = Mapping[str, Any]
Vector = NDArray[np.float32]

_DEPTH = 100
"""Rows each leg brings to the fusion: with as few as are returned, what both legs rank in the middle is lost."""
_MAX_K = 1000
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Query:
    """`where` is the filter in the store's SQL. `weights` are of the vector and the text leg."""

    text: str
    k: int
    mode: Mode
    where: str | None
    weights: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Raises InvalidValue."""
        if not self.text:
            raise InvalidValue("The query is empty.", param="query")
        if not 1 <= self.k <= _MAX_K:
            raise InvalidValue(f"k should be from 1 to {_MAX_K}, it is {self.k}.", param="k")
        if self.mode not in ("vector", "text", "hybrid"):
            raise InvalidValue(f"mode should be vector, text or hybrid, it is {self.mode!r}.", param="mode")
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights) or not any(self.weights):
            raise InvalidValue("The weights should not be negative, and not both zero.", param="ranking_options")


@dataclass(frozen=True)
class Embedded:
    """A query's vector of unit length and the tokens it cost."""

    vector: Vector
    tokens: int


class Legs:
    """Runs a query's legs at once and keeps what they found. One search uses it."""

    def __init__(self, store: "Store", query: Query, embed: Callable[[str], Awaitable[Embedded]]) -> None:
        self.by_vector: pa.Table | None = None
        self.by_text: pa.Table | None = None
        self.embedded: Embedded | None = None
        self.timings_ms: dict[str, float] = {}
        self._store = store
        self._query = query
        self._embed = embed
        self._depth = max(_DEPTH, query.k) if query.mode == "hybrid" else query.k

    async def run(self) -> None:
        match self._query.mode:
            case "vector":
                await self._vector()
            case "text":
                await self._text()
            case "hybrid":
                await asyncio.gather(self._vector(), self._text())

    async def _vector(self) -> None:
        started = time.perf_counter()
        self.embedded = await self._embed(self._query.text)
        found = time.perf_counter()
        self.by_vector = await self._store.nearest(self.embedded.vector, self._query.where, self._depth)
        self.timings_ms["embed"] = (found - started) * 1000
        self.timings_ms["vector"] = (time.perf_counter() - found) * 1000

    async def _text(self) -> None:
        started = time.perf_counter()
        self.by_text = await self._store.matching(self._query.text, self._query.where, self._depth)
        self.timings_ms["text"] = (time.perf_counter() - started) * 1000


def ranked(legs: Legs, query: Query) -> list[tuple[Row, float, dict[str, float]]]:
    """Rows nearest first, at most `query.k`, each with its score from 0 to 1 and its raw scores."""
    cosines, words = _cosines(legs), _scores(legs.by_text, "_score")
    match query.mode:
        case "vector":
            scores = {key: of_cosine(cosine) for key, cosine in cosines.items()}
        case "text":
            scores = {key: of_bm25(score) for key, score in words.items()}
        case "hybrid":
            scores = weighted_sum(list(zip((cosines, words), query.weights, strict=True)))
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[: query.k]
    places = _places(legs.by_text) | _places(legs.by_vector)
    return [(_row(*places[key]), score, _raw(key, cosines, words)) for key, score in best]


def hit(collection: str, row: Row, score: float, scores: dict[str, float], types: Types) -> Hit:
    """A row as the caller sees it."""
    return Hit(
        id=row["id"],
        collection=collection,
        document_id=row["document_id"],
        filename=row["filename"],
        uri=row["uri"],
        title=row["title"],
        heading=row["heading"],
        text=row["text"],
        score=score,
        scores=scores,
        start=row["start"],
        end=row["end"],
        token_count=row["token_count"],
        attributes=read(row, types),
    )


def _raw(key: str, cosines: Mapping[str, float], words: Mapping[str, float]) -> dict[str, float]:
    found = {"vector": cosines.get(key), "text": words.get(key)}
    return {name: score for name, score in found.items() if score is not None}


def _scores(table: "pa.Table | None", column: str) -> dict[str, float]:
    return {} if table is None else dict(zip(_values(table, "id"), _values(table, column), strict=True))


def _cosines(legs: Legs) -> dict[str, float]:
    """Of every row either leg found; for those of the text leg from their stored vectors."""
    cosines = {key: 1.0 - distance for key, distance in _scores(legs.by_vector, "_distance").items()}
    if legs.embedded is None or legs.by_text is None or legs.by_text.num_rows == 0:
        return cosines
    column = cast("pa.FixedSizeListArray[Any, Any]", legs.by_text["vector"].combine_chunks())
    vectors = column.flatten().to_numpy().reshape(legs.by_text.num_rows, -1)
    sizes = np.maximum(np.linalg.norm(vectors, axis=1), _SMALLEST)
    found = vectors @ legs.embedded.vector / sizes
    return dict(zip(_values(legs.by_text, "id"), found.tolist(), strict=True)) | cosines


def _values(table: "pa.Table", column: str) -> list[Any]:
    return list(table[column].to_pylist())


def _places(table: "pa.Table | None") -> "dict[str, tuple[pa.Table, int]]":
    return {} if table is None else {key: (table, n) for n, key in enumerate(_values(table, "id"))}


def _row(table: "pa.Table", place: int) -> Row:
    row: Row = table.slice(place, 1).to_pylist()[0]
    return row
