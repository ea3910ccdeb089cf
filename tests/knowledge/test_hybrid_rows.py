"""A hybrid search reads only the rows that it shows, and answers as if all that both halves found had been read."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from server.knowledge.reading import Reading
from server.knowledge.search import Embedded, Legs, Query, Ranking, ranked, searched
from server.knowledge.store import Store
from tests.knowledge.tables import cut, filled, shape, units

pytestmark = pytest.mark.anyio


def asked(text: str = "word 7", k: int = 8, where: str | None = None) -> Query:
    return Query(text, k, "hybrid", where, (0.6, 0.4))


async def embed(_: str) -> Embedded:
    return Embedded(units(1, seed=999)[0], 3)


async def both(store: Reading, query: Query) -> tuple[Ranking, Ranking]:
    """With the rows of what is shown, and with all rows."""
    legs = Legs(store, query, embed)
    await legs.run()
    return (await searched(store, query, embed))[1], ranked(legs, query)


def shown(ranking: Ranking) -> list[Mapping[str, Any]]:
    """Without what only one of both ways reads: scores of the halves, and addresses."""
    without = ("_distance", "_score", "_rowid")
    return [{name: value for name, value in row.items() if name not in without} for row, _, _ in ranking.rows]


@pytest.mark.parametrize("hot", [0, 2**20], ids=["from disk", "from memory"])
async def test_both_ways_find_the_same(tmp_path: Path, hot: int) -> None:
    store = await filled(tmp_path, 150, 2, hot=hot)
    await store.index_words()
    before = await store.version()
    await store.replace([cut(f"d{n}", 3, seed=1000 + n) for n in range(20, 40)])
    await store.delete([f"d{n}" for n in range(50, 60)])
    assert bool(await store.warm()) == bool(hot)
    for query in (asked(), asked(k=150), asked("d7", where="document_id < 'd3'"), asked("no such thing"), asked(k=1)):
        few, whole = await both(store, query)
        assert shown(few) == shown(whole) != []
        assert np.allclose([score for _, score, _ in few.rows], [score for _, score, _ in whole.rows], atol=1e-6)
        assert [raw.keys() for _, _, raw in few.rows] == [raw.keys() for _, _, raw in whole.rows]
        assert few.places.keys() == whole.places.keys()
        assert {row["id"] for row, _, _ in few.rows} <= {*few.places["vector"], *few.places.get("text", {})}
    async with store.at(before) as earlier:
        few, whole = await both(earlier, asked("d55"))
        assert shown(few) == shown(whole) and few.rows[0][0]["document_id"] == "d55"
    nothing = await both(store, asked(where="document_id = 'd'"))
    assert [ranking.rows for ranking in nothing] == [[], []]
    await store.close()


async def test_of_chunks_that_score_alike_those_with_the_first_ids_are_shown(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    await store.replace([cut(f"d{n}", 1) for n in range(30)])
    await store.index_words()
    ids = sorted(row["id"] for row in (await store.whole([f"d{n}" for n in range(30)])).to_pylist())
    for ranking in await both(store, asked("word", k=5)):
        assert [row["id"] for row, _, _ in ranking.rows] == ids[:5]
    await store.close()


async def test_rows_that_are_written_anew_before_they_are_shown_are_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled(tmp_path, 40, 2, hot=0)
    await store.index_words()
    read, embedded, late = store.rows_at, 0, False

    async def once(_: str) -> Embedded:
        nonlocal embedded
        embedded += 1
        return await embed("")

    async def too_late(addresses: list[int]) -> pa.Table | None:
        nonlocal late
        late = True
        await store.replace([cut(f"d{n}", 2, "fresh", seed=n) for n in range(40)])
        await store.compact(timedelta(hours=1))
        return await read(addresses)

    monkeypatch.setattr(store, "rows_at", too_late)
    _, ranking = await searched(store, asked("word"), once)
    assert late and embedded == 1
    assert len(ranking.rows) == 8
    assert all(row["text"].startswith("fresh") for row, _, _ in ranking.rows)
    await store.close()
