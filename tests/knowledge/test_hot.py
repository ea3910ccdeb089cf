"""The hot tier: what memory answers is what the disk would, in every version, and no row is missed or seen twice."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from server.knowledge import lists
from server.knowledge.coarse import coarse
from server.knowledge.newest import Newest
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
    made = lists.build(vectors.copy())
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


async def test_a_table_in_coarse_form_is_answered_exactly_through_changes(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    await store.replace([cut("old", 2500)])
    there = {f"word {n} of old": vector for n, vector in enumerate(units(2500))}

    async def exact() -> None:
        assert await store.warm() == len(there)
        texts, vectors = list(there), np.stack(list(there.values()))
        for question in units(20, seed=77):
            for limit in (1, 10, 120):
                found = await store.nearest(question, None, limit)
                best = np.argsort(-(vectors @ question))[:limit]
                assert found["text"].to_pylist() == [texts[n] for n in best]

    await exact()
    assert store._hot.snapshot is not None and store._hot.snapshot.coarse is not None
    await store.replace([cut("new", 300, seed=1)])
    there |= {f"word {n} of new": vector for n, vector in enumerate(units(300, seed=1))}
    await exact()
    await store.replace([cut("old", 2200, "other", seed=2)])  # most of what is in coarse form is there no more
    there = {text: vector for text, vector in there.items() if text.endswith("new")}
    there |= {f"other {n} of old": vector for n, vector in enumerate(units(2200, seed=2))}
    await exact()
    await store.close()


@pytest.mark.parametrize("dimension", [7, 384])
def test_what_a_coarse_form_leaves_out_is_not_among_the_nearest(dimension: int) -> None:
    chance = np.random.default_rng(11)
    centres = chance.normal(size=(30, dimension))
    vectors = (centres[chance.integers(0, 30, 3000)] + 0.2 * chance.normal(size=(3000, dimension))).astype(np.float32)
    vectors[:40] = np.eye(dimension, dtype=np.float32)[3]  # one number that is far larger than the others
    vectors[40:60] = vectors[60]  # equal ones
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    made = coarse(vectors)
    alive = np.ones(3000, np.bool_)
    alive[::3] = False
    left = 0
    for question in vectors[::50]:
        cosines = np.vecdot(vectors, question)
        for here in (None, alive):
            among = np.arange(3000) if here is None else np.flatnonzero(here)
            tenth = np.sort(cosines[among])[-10]
            near = made.near(question, 10, here)
            assert set(near.tolist()) >= set(among[cosines[among] >= tenth].tolist())
            left += len(near)
    assert left < 120 * 3000 / 4, "it tells next to nothing"
    assert set(made.near(vectors[0], 3000, None).tolist()) == set(range(3000))


async def test_the_newest_version_is_asked_again_as_soon_as_the_folder_changed(tmp_path: Path) -> None:
    asked = 0
    now = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        return asked

    def changed(at: int) -> None:
        nonlocal now
        os.utime(tmp_path, ns=(at, at))
        now = at

    newest = Newest(tmp_path, ask, lambda: now)
    start = 1_700_000_000_000_000_007
    changed(start)
    assert [await newest.version() for _ in range(2)] == [1, 2], "it may change once more at this very time"
    now += 1_000_000_000
    assert [await newest.version() for _ in range(3)] == [3, 3, 3]
    changed(start + 2_000_000_000)
    assert [await newest.version() for _ in range(2)] == [4, 5]
    changed(start - 7)  # whole seconds, as some file systems keep: the next change may be two of them away
    now += 2_000_000_000
    assert [await newest.version() for _ in range(2)] == [6, 7]
    now += 1_000_000_000
    assert [await newest.version() for _ in range(2)] == [8, 8]
    gone = Newest(tmp_path / "gone", ask, lambda: now)
    assert [await gone.version() for _ in range(2)] == [9, 10]


async def test_what_another_writes_is_seen_at_once_by_who_knew_the_newest_version(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    other = await Store.open(tmp_path, shape())
    versions = tmp_path / "chunks_1.lance" / "_versions"
    for n in range(5):
        long_ago = 1_700_000_000_000_000_001 + n
        os.utime(versions, ns=(long_ago, long_ago))
        version = await store.version()
        assert version == await other.version() == await Reading.version(store)
        await other.replace([cut(f"e{n}", 1)])
        assert await store.version() > version
    await store.close()
    await other.close()


@pytest.mark.parametrize("vector", [units(1)[0][:5], np.full(16, np.nan, np.float32)], ids=["size", "nan"])
async def test_a_query_that_is_no_vector_of_this_table_is_refused(tmp_path: Path, vector: np.ndarray) -> None:
    store = await filled(tmp_path, 3)
    for where in (None, "title = ''"):
        with pytest.raises(ValueError, match="vector"):
            await store.nearest(vector, where, 1)
    await store.close()
