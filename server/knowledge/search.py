"""One search over a store: the legs, their fusion, and rows as hits. Knows no recipe."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice, takewhile
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
Key = str | int
"""Of a row: its id, or its address where the row itself was not read."""
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
        self._is_whole = True
        self._store = store
        self._query = query
        self._embed = embed
        self._depth = max(_DEPTH, query.k) if query.mode == "hybrid" else query.k

    async def run(self, *, whole: bool = True) -> None:
        """With `whole`, what was found has all columns of a hit; else `_rowid`, its address, in place of them."""
        self._is_whole = whole
        match self._query.mode:
            case "vector":
                await self._vector(whole)
            case "text":
                await self._text(whole)
            case "hybrid":
                await asyncio.gather(self._vector(whole), self._text(whole))

    async def complete(self) -> None:
        """Have whole rows: where only addresses were read, all is searched once more."""
        if not self._is_whole:
            await self.run()

    def keys(self) -> dict[str, list[Any]]:
        """By leg what it found, best first: ids, or addresses."""
        tables = {"vector": self.by_vector, "text": self.by_text}
        return {
            name: _values(table, "id" if "id" in table.column_names else "_rowid")
            for name, table in tables.items()
            if table is not None
        }

    def documents(self) -> set[str]:
        """Of the rows that were found."""
        tables = (self.by_vector, self.by_text)
        return {each for table in tables if table is not None for each in _values(table, "document_id")}

    async def _vector(self, whole: bool) -> None:
        started = time.perf_counter()
        self.embedded = self.embedded or await self._embed(self._query.text)
        found = time.perf_counter()
        search = self._store.nearest if whole else self._store.nearest_places
        self.by_vector = await search(self.embedded.vector, self._query.where, self._depth)
        self.timings_ms["embed"] = (found - started) * 1000
        self.timings_ms["vector"] = (time.perf_counter() - found) * 1000

    async def _text(self, whole: bool) -> None:
        started = time.perf_counter()
        search = self._store.matching if whole else self._store.matching_places
        self.by_text = await search(self._query.text, self._query.where, self._depth)
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

    `places` are theirs in each leg that found them, by id and from 1; `scale` is what the scores were measured by.
    """

    rows: list[tuple[Row, float, dict[str, float]]]
    places: dict[str, dict[str, int]]
    scale: Scale


async def searched(store: "Reading", query: Query, embed: Callable[[str], Awaitable[Embedded]]) -> tuple[Legs, Ranking]:
    """What one store finds. Where two legs bring more than is shown, the rows are read of that alone.

    Reading all of them is most of a hybrid search. Rows that are written anew between the two have another address
    then: all is searched once more, as a whole.
    """
    legs = Legs(store, query, embed)
    if query.mode != "hybrid":
        await legs.run()
        return legs, ranked(legs, query)
    await legs.run(whole=False)
    scored = _scored(legs, query)
    wanted = [key for key in _first(scored.scores, query.k) if isinstance(key, int)]
    found = await store.rows_at(wanted) if wanted else None
    if wanted and found is None:
        await legs.complete()
        return legs, ranked(legs, query)
    rows: dict[Key, Row] = {} if found is None else {row["_rowid"]: row for row in found.to_pylist()}
    return legs, _ranking(scored, rows, query.k)


def ranked(legs: Legs, query: Query) -> Ranking:
    """At most `query.k` rows, of legs with whole rows."""
    scored = _scored(legs, query)
    return _ranking(scored, _rows(legs, scored.keys, _first(scored.scores, query.k)), query.k)


@dataclass(frozen=True)
class _Scored:
    """All that the legs found: `scores` best first, `keys` by leg, and the raw scores."""

    scores: dict[Key, float]
    keys: dict[str, list[Key]]
    cosines: dict[Key, float]
    words: dict[Key, float]
    scale: Scale


def _scored(legs: Legs, query: Query) -> _Scored:
    keys = legs.keys()
    cosines, words = _cosines(legs, keys), _scores(legs.by_text, keys.get("text"), "_score")
    scale = Scale.of(query.text, words.values(), cosines.values())
    match query.mode:
        case "vector":
            scores = best_first({key: of_cosine(cosine) for key, cosine in cosines.items()})
        case "text":
            scores = best_first({key: of_bm25(score) for key, score in words.items()})
        case "hybrid":
            scores = fused(cosines, words, query.weights, scale)
    return _Scored(scores, keys, cosines, words, scale)


def _first(scores: Mapping[Key, float], k: int) -> list[Key]:
    """The best `k`, and all whose score is no less than the last of these."""
    best = list(islice(scores.items(), k))
    return [*takewhile(lambda key: scores[key] >= best[-1][1], scores)] if best else []


def _ranking(scored: _Scored, rows: Mapping[Key, Row], k: int) -> Ranking:
    """Of these rows by key; ties are broken by id, which stays where an address does not."""
    order = sorted(rows, key=lambda key: (-scored.scores[key], rows[key]["id"]))[:k]
    places = {
        name: {rows[key]["id"]: place for place, key in enumerate(keys, 1) if key in rows}
        for name, keys in scored.keys.items()
    }
    shown = [(rows[key], scored.scores[key], _raw(key, scored.cosines, scored.words)) for key in order]
    return Ranking(shown, places, scored.scale)


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


def _raw(key: Key, cosines: Mapping[Key, float], words: Mapping[Key, float]) -> dict[str, float]:
    found = {"vector": cosines.get(key), "text": words.get(key)}
    return {name: score for name, score in found.items() if score is not None}


def _scores(table: "pa.Table | None", keys: Sequence[Key] | None, column: str) -> dict[Key, float]:
    return {} if table is None or keys is None else dict(zip(keys, _values(table, column), strict=True))


def _cosines(legs: Legs, keys: Mapping[str, Sequence[Key]]) -> dict[Key, float]:
    """Of every row either leg found; for those of the text leg from their stored vectors."""
    distances = _scores(legs.by_vector, keys.get("vector"), "_distance")
    cosines = {key: 1.0 - distance for key, distance in distances.items()}
    if legs.embedded is None or legs.by_text is None or legs.by_text.num_rows == 0:
        return cosines
    column = cast("pa.FixedSizeListArray[Any, Any]", legs.by_text["vector"].combine_chunks())
    vectors = column.flatten().to_numpy().reshape(legs.by_text.num_rows, -1)
    sizes = np.maximum(np.linalg.norm(vectors, axis=1), _SMALLEST)
    found = vectors @ legs.embedded.vector / sizes
    return dict(zip(keys["text"], found.tolist(), strict=True)) | cosines


def _values(table: "pa.Table", column: str) -> list[Any]:
    return list(table[column].to_pylist())


def _rows(legs: Legs, keys: Mapping[str, Sequence[Key]], wanted: Sequence[Key]) -> dict[Key, Row]:
    """By id; of each table all at once, and of no others, for this is the dearest part of a ranking."""
    found: dict[Key, Row] = {}
    for name, table in (("vector", legs.by_vector), ("text", legs.by_text)):
        if table is not None:
            places = dict(zip(keys[name], range(table.num_rows), strict=True))
            here = [places[key] for key in wanted if key in places and key not in found]
            told = table.drop_columns(["vector"]) if "vector" in table.column_names else table
            found |= {row["id"]: row for row in told.take(here).to_pylist()} if here else {}
    return found
