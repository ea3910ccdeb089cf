"""One search over a store: the legs, their fusion, and rows as hits. Knows no recipe."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.errors import InvalidValue
from server.knowledge.attributes import Types, read
from server.knowledge.document import Hit, joined
from server.knowledge.fuse import Scale, best_first, fused, of_bm25, of_cosine

if TYPE_CHECKING:
    import pyarrow as pa

    from server.knowledge.reading import Reading

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

    def __init__(self, store: "Reading", query: Query, embed: Callable[[str], Awaitable[Embedded]]) -> None:
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

    def documents(self) -> set[str]:
        """Of the rows that were found."""
        tables = (self.by_vector, self.by_text)
        return {each for table in tables if table is not None for each in _values(table, "document_id")}

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


def joined_legs(legs: Legs, others: Legs, documents: Set[str]) -> Legs:
    """The same with what `others` found of these documents, for one ranking of both."""
    legs.by_vector = _joined(legs.by_vector, others.by_vector, documents, "_distance", "ascending")
    legs.by_text = _joined(legs.by_text, others.by_text, documents, "_score", "descending")
    legs.embedded = legs.embedded or others.embedded
    return legs


def _joined(
    found: "pa.Table | None",
    others: "pa.Table | None",
    documents: Set[str],
    score: str,
    order: Literal["ascending", "descending"],
) -> "pa.Table | None":
    import pyarrow as pa
    import pyarrow.compute as pc

    if others is None:
        return found
    shown = others.filter(pc.is_in(others["document_id"], pa.array(sorted(documents), pa.string())))
    if found is not None:
        shown = pa.concat_tables([found, shown.select(found.column_names).cast(found.schema)])
    return shown.sort_by([(score, order)])


@dataclass(frozen=True)
class Ranking:
    """`rows` nearest first, each with its score from 0 to 1 and its raw scores.

    `legs` are the ids each leg found, best first; `scale` is what their scores were measured by.
    """

    rows: list[tuple[Row, float, dict[str, float]]]
    legs: dict[str, list[str]]
    scale: Scale


def ranked(legs: Legs, query: Query) -> Ranking:
    """At most `query.k` rows."""
    tables = {"vector": legs.by_vector, "text": legs.by_text}
    ids = {name: _values(table, "id") for name, table in tables.items() if table is not None}
    cosines, words = _cosines(legs, ids), _scores(legs.by_text, ids.get("text"), "_score")
    scale = Scale.of(query.text, words.values(), cosines.values())
    match query.mode:
        case "vector":
            scores = best_first({key: of_cosine(cosine) for key, cosine in cosines.items()})
        case "text":
            scores = best_first({key: of_bm25(score) for key, score in words.items()})
        case "hybrid":
            scores = fused(cosines, words, query.weights, scale)
    best = list(islice(scores.items(), query.k))
    shown = _rows(legs, ids, [key for key, _ in best])
    rows = [(shown[key], score, _raw(key, cosines, words)) for key, score in best]
    return Ranking(rows, ids, scale)


def hit(
    collection: str, row: Row, score: float, scores: dict[str, float], types: Types, cold: Set[str] = frozenset()
) -> Hit:
    """A row as the caller sees it; `cold` are the documents that came from cold storage."""
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
        page=row["page"],
        licence=row["licence"],
        tier="cold" if row["document_id"] in cold else "warm",
    )


def widened(found: Hit, around: Sequence[Row]) -> Hit:
    """The hit with its neighbours' text, which `around` holds in order, the hit's among it. Tokens are not counted."""
    if not around:
        return found
    start = around[0]["start"]
    text = joined(around, start)
    return msgspec.structs.replace(found, text=text, start=start, end=start + len(text))


def _raw(key: str, cosines: Mapping[str, float], words: Mapping[str, float]) -> dict[str, float]:
    found = {"vector": cosines.get(key), "text": words.get(key)}
    return {name: score for name, score in found.items() if score is not None}


def _scores(table: "pa.Table | None", ids: Sequence[str] | None, column: str) -> dict[str, float]:
    return {} if table is None or ids is None else dict(zip(ids, _values(table, column), strict=True))


def _cosines(legs: Legs, ids: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Of every row either leg found; for those of the text leg from their stored vectors."""
    distances = _scores(legs.by_vector, ids.get("vector"), "_distance")
    cosines = {key: 1.0 - distance for key, distance in distances.items()}
    if legs.embedded is None or legs.by_text is None or legs.by_text.num_rows == 0:
        return cosines
    column = cast("pa.FixedSizeListArray[Any, Any]", legs.by_text["vector"].combine_chunks())
    vectors = column.flatten().to_numpy().reshape(legs.by_text.num_rows, -1)
    sizes = np.maximum(np.linalg.norm(vectors, axis=1), _SMALLEST)
    found = vectors @ legs.embedded.vector / sizes
    return dict(zip(ids["text"], found.tolist(), strict=True)) | cosines


def _values(table: "pa.Table", column: str) -> list[Any]:
    return list(table[column].to_pylist())


def _rows(legs: Legs, ids: Mapping[str, Sequence[str]], wanted: Sequence[str]) -> dict[str, Row]:
    """By id; of each table all at once, and of no others, for this is the dearest part of a ranking."""
    found: dict[str, Row] = {}
    for name, table in (("vector", legs.by_vector), ("text", legs.by_text)):
        if table is not None:
            places = dict(zip(ids[name], range(table.num_rows), strict=True))
            here = [places[key] for key in wanted if key in places and key not in found]
            told = table.drop_columns(["vector"]) if "vector" in table.column_names else table
            found |= {row["id"]: row for row in told.take(here).to_pylist()} if here else {}
    return found
