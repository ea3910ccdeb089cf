"""The hot tier: what memory answers is what the disk would, in every version, and no row is missed or seen twice."""

import asyncio
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from server.knowledge import lists
from server.knowledge.reading import Reading
from server.knowledge.snapshot import EXACT_ROWS
from server.knowledge.store import Store
from tests.knowledge.tables import cut, filled, nearest, shape, units

pytestmark = pytest.mark.anyio


async def on_disk(store: Store, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
    found = await Reading.nearest(store, vector, None, limit)
    return list(zip(found["id"].to_pylist(), found["_distance"].to_pylist(), strict=True))


async def in_memory(store: Store, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
    assert await store.warm() > 0
    found = await store.nearest(vector, None, limit)
    assert store.hot_rows == (await store.count())[1]
    return list(zip(found["id"].to_pylist(), found["_distance"].to_pylist(), strict=True))


async def test_memory_answers_as_the_disk_through_every_kind_of_change(tmp_path: Path) -> None:
    store = await filled(tmp_path, 300)
    question = units(1, seed=999)[0]

    async def same() -> None:
        there, here = await on_disk(store, question, 400), await in_memory(store, question, 400)
        assert [each for each, _ in here] == [each for each, _ in there]
        assert np.allclose([far for _, far in here], [far for _, far in there], atol=1e-5)
        where = "document_id < 'd2'"
        filtered = await store.nearest(question, where, 50), await Reading.nearest(store, question, where, 50)
        assert filtered[0]["id"].to_pylist() == filtered[1]["id"].to_pylist() != []
        by_words = await store.matching("word", None, 400), await Reading.matching(store, "word", None, 400)
        shown, wanted = ({row.pop("id"): row for row in table.to_pylist()} for table in by_words)  # type: ignore[union-attr]
        assert len(shown) == len(wanted) > 0
        for each, row in shown.items():
            assert np.allclose(row.pop("vector"), wanted[each].pop("vector"), atol=1e-6)
            assert row == wanted[each]

    await store.index_words()
    await same()
    await store.replace([cut(f"d{n}", 2, seed=1000 + n) for n in range(5, 25)])  # changed
    await same()
    await store.delete([f"d{n}" for n in range(30, 60)])
    await same()
    await store.set_attributes("d100", {"team": "ops"})
    await same()
    found = (await store.nearest(units(1, seed=100)[0], None, 1)).to_pylist()[0]
    assert (found["document_id"], found["attribute_team"]) == ("d100", "ops")
    await store.compact(timedelta(hours=1))
    await same()
    await store.delete([f"d{n}" for n in range(60, 300)])  # so many that memory is made anew
    await same()
    await store.close()


async def test_a_row_that_is_written_again_and_again_is_found_once_in_every_search(tmp_path: Path) -> None:
    """Searches run while two documents change places with one another's vectors, from two stores."""
    store = await filled(tmp_path, 50)
    writer = await Store.open(tmp_path, shape())
    done = asyncio.Event()

    async def write() -> None:
        for n in range(30):
            await writer.replace([cut("d1", 1, seed=1 + n % 2), cut("d2", 1, seed=2 - n % 2)])
        done.set()

    async def search() -> int:
        searches = 0
        while not done.is_set():
            found = await nearest(store, units(1, seed=1)[0], 100)
            assert sorted(found) == sorted(f"d{n}" for n in range(50))
            assert found[0] in ("d1", "d2")
            searches += 1
        return searches

    _, searches = await asyncio.gather(write(), search())
    assert searches > 0
    assert await store.warm() == 50
    assert (await nearest(store, units(1, seed=1)[0]))[0] == "d2"
    await store.close()
    await writer.close()


async def test_a_table_that_does_not_fit_is_searched_on_disk(tmp_path: Path) -> None:
    store = await filled(tmp_path, 50, hot=1000)
    assert await store.warm() == 0
    assert (await nearest(store, units(1, seed=7)[0]))[0] == "d7"
    await store.close()


async def test_an_empty_table_finds_nothing(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    for _ in range(2):
        assert await nearest(store, units(1)[0]) == []
        await store.warm()
    await store.replace([cut("a", 2)])
    await store.warm()
    await store.delete(["a"])
    await store.warm()
    assert await nearest(store, units(1)[0]) == []
    await store.close()


async def test_a_large_table_is_searched_in_lists_with_what_came_since_beside_them(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    big = cut("big", EXACT_ROWS + 1000)
    await store.replace([big])
    assert await store.warm() == EXACT_ROWS + 1000
    assert store._hot.snapshot is not None and store._hot.snapshot.lists is not None
    for n in (0, 777, EXACT_ROWS + 999):
        assert (await store.nearest(big.vectors[n], None, 1))["text"].to_pylist() == [f"word {n} of big"]
    await store.replace([cut("late", 1, seed=5)])
    await store.warm()
    assert (await nearest(store, units(1, seed=5)[0]))[0] == "late"
    await store.delete(["big"])
    assert await store.warm() == 1
    assert await nearest(store, big.vectors[0]) == ["late"]
    await store.close()


@pytest.mark.parametrize("spread", [0.3, 5.0], ids=["clusters", "none"])
def test_lists_reach_their_recall_whether_there_are_clusters_or_not(spread: float) -> None:
    chance = np.random.default_rng(3)
    centres = chance.normal(size=(40, 32)).astype(np.float32)
    vectors = centres[chance.integers(0, 40, 4100)] + spread * chance.normal(size=(4100, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    questions, vectors = vectors[:100], vectors[100:]
    made = lists.build(vectors)
    hits = 0
    for question in questions:
        numbers, cosines = made.search(question)
        assert np.allclose(cosines, vectors[numbers] @ question, atol=1e-5)
        found = numbers[np.argsort(-cosines)[:10]]
        hits += len(set(found.tolist()) & set(np.argsort(-(vectors @ question))[:10].tolist()))
    assert hits >= 990


def test_lists_of_equal_vectors_and_of_one() -> None:
    for count in (1, 5, 500):
        made = lists.build(np.repeat(units(1), count, axis=0))
        assert len(made.search(units(1)[0])[0]) == count


@pytest.mark.parametrize("vector", [units(1)[0][:5], np.full(16, np.nan, np.float32)], ids=["size", "nan"])
async def test_a_query_that_is_no_vector_of_this_table_is_refused(tmp_path: Path, vector: np.ndarray) -> None:
    store = await filled(tmp_path, 3)
    for where in (None, "title = ''"):
        with pytest.raises(ValueError, match="vector"):
            await store.nearest(vector, where, 1)
    await store.close()
