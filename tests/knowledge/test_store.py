"""The table itself: one commit a batch, one writer at a time, writes after compaction, versions and their leases."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lancedb.index import IvfRq
from msgspec import msgpack

from server.errors import InvalidValue
from server.knowledge import store as store_room
from server.knowledge.reading import Reading
from server.knowledge.rows import HIT_COLUMNS, PACKED, digests
from server.knowledge.shape import connected
from server.knowledge.store import Store
from tests.knowledge.tables import cut, filled, nearest, shape, units

pytestmark = pytest.mark.anyio


async def settle(store: Store) -> None:
    """What maintenance does when it is due."""
    await store.compact(timedelta(hours=1))


async def matches(store: Store, word: str) -> int:
    found = await store.matching(word, None, 500)
    assert found is not None
    return int(found.num_rows)


async def test_a_batch_is_one_commit_and_takes_what_was_there_away(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    await store.replace([cut("a", 5), cut("b", 5), cut("c", 5)])
    before = await store.version()
    await store.replace([cut("a", 2, "new"), cut("b", 0), cut("d'; --", 3)])
    assert await store.version() == before + 1
    assert await store.count() == (3, 10)
    assert set(await store.documents()) == {"a", "c", "d'; --"}
    await store.delete(["d'; --", "unknown"])
    assert await store.count() == (2, 7)


async def test_updates_after_compaction_with_an_index_on_the_key_reach_every_row(tmp_path: Path) -> None:
    """A fault of earlier LanceDB versions: merge_insert silently changed nothing after optimize."""
    store = await Store.open(tmp_path, shape())
    for n in range(40):
        await store.replace([cut(f"doc{n}", 4)])
        if n == 5:
            await settle(store)
    await settle(store)
    for n in range(0, 40, 2):
        await store.replace([cut(f"doc{n}", 4, seed=1)])
    await settle(store)
    await store.replace([cut(f"doc{n}", 3, "fresh") for n in range(40)])
    assert await store.count() == (40, 120)
    assert await matches(store, "fresh") == 120
    assert await matches(store, "word") == 0


@pytest.mark.parametrize("writer", ["own", "another"])
async def test_rows_that_change_while_small_fragments_are_joined_stay_as_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    monkeypatch.setattr(store_room, "_LARGE", 30)
    store = await filled(tmp_path, 60)
    for n in range(6):
        await store.replace([cut(f"late{n}", 1)])
    other = store if writer == "own" else await Store.open(tmp_path, shape())
    read, reads = Store._some_of, []

    async def overtaken(self: Store, fragments: Sequence[int], most: int) -> tuple[pa.Table, bool]:
        found = await read(self, fragments, most)
        reads.append(found[0].num_rows)
        if len(reads) == 1:
            await other.replace([cut("late1", 1, "fresh")])
            await other.delete(["late2"])
        return found

    monkeypatch.setattr(Store, "_some_of", overtaken)
    await settle(store)
    assert reads == [6, 4]  # what changed is in a fragment that came later
    assert await store.count() == (65, 65)
    assert await matches(store, "fresh") == 1
    assert "late2" not in await store.documents()


async def test_compaction_that_a_write_came_between_is_done_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path, shape())
    for n in range(8):
        await store.replace([cut(f"doc{n}", 4)])
    table, tries = type(store._table), []
    optimize = table.optimize

    async def preempted(self: object, **options: object) -> object:
        tries.append(options)
        if len(tries) < 3:
            raise RuntimeError("lance error: Retryable commit conflict for version 11: please retry")
        return await optimize(self, **options)

    monkeypatch.setattr(table, "optimize", preempted)
    await settle(store)
    assert (len(tries), (await store.measure()).fragments) == (3, 1)

    async def broken(self: object, **options: object) -> object:
        tries.append(options)
        raise RuntimeError("lance error: Retryable commit conflict for version 12: please retry")

    monkeypatch.setattr(table, "optimize", broken)
    with pytest.raises(RuntimeError, match="commit conflict"):
        await settle(store)
    assert len(tries) == 8


async def test_words_are_found_before_and_after_compaction(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    assert await store.matching("word", None, 5) is None
    await store.replace([cut("a", 3)])
    await settle(store)
    await store.replace([cut("b", 3, "tail")])
    assert await matches(store, "tail") == 3
    await settle(store)
    assert await matches(store, "tail") == 3


async def test_a_table_is_found_again_only_with_the_same_shape_and_model(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    await store.replace([cut("a", 3)])
    await store.close()
    same = await Store.open(tmp_path, shape())
    assert (same.name, await same.count()) == ("chunks_1", (1, 3))
    for n, other in enumerate((shape("g"), shape("f", probe=1)), start=2):
        fresh = await Store.open(tmp_path, other)
        assert (fresh.name, await fresh.count()) == (f"chunks_{n}", (0, 0))


async def test_a_table_of_an_earlier_layout_is_written_and_read_as_it_is(tmp_path: Path) -> None:
    """Hits are read from one column where there is it, and from their own where a table or a row lacks it."""
    new = await Store.open(tmp_path / "new", shape())
    await new.replace([cut("a", 2), cut("b", 2, seed=1)])
    await new.index_words()
    connection = await connected(tmp_path / "old")
    like = (await new._table.schema()).remove(len((await new._table.schema()).names) - 1)
    await connection.create_table("chunks_1", schema=like)
    old = await Store.open(tmp_path / "old", shape())
    assert (await new.names(), await old.names()) == ([*like.names, PACKED], like.names)
    await old.replace([cut("a", 2), cut("b", 1)])
    await old.replace([cut("b", 2, seed=1)])
    await old.index_words()
    bare = await Store.open(tmp_path / "bare", shape())
    await bare._table.add((await old.whole(["a", "b"])).append_column(PACKED, pa.nulls(4, pa.binary())))
    await bare.index_words()
    short = await Store.open(tmp_path / "short", shape())
    earlier = [msgpack.encode(["x.md", "x.md", "", "", 0, 1, 4, None, None]) for _ in range(4)]  # without ids
    without_ids = (await old.whole(["a", "b"])).append_column(PACKED, pa.array(earlier, pa.binary()))
    await short._table.add(without_ids)
    await short.index_words()
    moved = await Store.open(tmp_path / "moved", shape())
    assert set(await moved.bring(await old.whole(["a"]))) == {"a"}
    assert set(await moved.bring(without_ids.filter(pc.equal(without_ids["document_id"], "b")))) == {"b"}
    assert (await moved.whole(["a", "b"]))[PACKED].null_count == 0
    await moved.index_words()
    await old.delete(["a"])
    assert await old.bring(await new.whole(["a"])) == ["a"]
    assert digests(await old.whole(["a", "b"])) == digests(await new.whole(["a", "b"]))
    question = units(1)[0]

    async def told(store: Store) -> list[dict[str, object]]:
        near = await Reading.nearest(store, question, None, 4)
        words = await Reading.matching(store, "word", None, 4)
        assert words is not None
        rows = [*near.to_pylist(), *sorted(words.to_pylist(), key=lambda row: row["id"])]
        return [{name: row[name] for name in (*HIT_COLUMNS, "attribute_team")} for row in rows]

    wanted = await told(new)
    assert len(wanted) == 8
    for store in (old, bare, short, moved):
        assert await told(store) == wanted
        await store.close()
    await new.close()


async def test_a_large_table_gets_a_vector_index_that_finds_the_nearest(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    big = cut("a", 20_000)
    await store.replace([big])
    await settle(store)
    found = (await store.nearest(big.vectors[777], None, 3)).to_pylist()
    assert found[0]["text"] == "word 777 of a"
    assert found[0]["_distance"] == pytest.approx(0, abs=1e-3)
    await store.replace([cut("b", 1, "tail", seed=9)])
    tail = cut("b", 1, "tail", seed=9)
    assert (await store.nearest(tail.vectors[0], None, 1)).to_pylist()[0]["document_id"] == "b"
    # Vectors without clusters are the hardest for an index, whose own are coarser; one that is too coarse is replaced.
    await store._table.create_index("vector", config=IvfRq(distance_type="cosine", num_bits=1))
    assert await store.lacks_index()
    await settle(store)
    assert not await store.lacks_index()
    for limit in (10, 100):
        recalls = []
        for question in units(20, seed=5):
            exact = np.argsort(-(big.vectors @ question))[:limit]
            near = await Reading.nearest(store, question, None, limit)  # from disk
            recalls.append(len({f"word {n} of a" for n in exact} & set(near["text"].to_pylist())) / limit)
        assert np.mean(recalls) >= 0.99


async def test_what_another_wrote_is_replaced_by_a_writer_that_began_with_an_empty_table(tmp_path: Path) -> None:
    """A writer remembers what it wrote itself; what others did between two of its writes it has to ask."""
    one, other = [await Store.open(tmp_path, shape()) for _ in range(2)]
    await one.replace([cut("a", 2)])
    await other.replace([cut("b", 2)])
    await one.delete(["unknown"])  # holds the lock in between
    await one.replace([cut("b", 3, "new"), cut("c", 1)])
    await one.replace([cut("a", 1, "new"), cut("c", 2)])
    assert await one.count() == (3, 6)
    await one.index_words()
    assert await matches(one, "new") == 4


async def test_what_another_wrote_is_known_of_whoever_remembers_its_own_writes(tmp_path: Path) -> None:
    one, other = await Store.open(tmp_path, shape()), await Store.open(tmp_path, shape())
    await one.replace([cut("a", 1)])
    assert await one.known(["b"]) == {}
    await other.replace([cut("b", 1)])
    assert set(await one.known(["a", "b", "c"])) == {"a", "b"}
    again = await Store.open(tmp_path, shape())  # as after a restart
    await again.replace([cut("c", 1)])
    assert set(await again.known(["a", "c", "d"])) == {"a", "c"}
    await again.replace([cut("a", 3)])
    assert await again.count() == (3, 5)


async def test_writers_of_one_folder_take_turns_and_leave_each_document_once(tmp_path: Path) -> None:
    stores = [await Store.open(tmp_path, shape()) for _ in range(4)]
    await asyncio.gather(*(store.replace([cut(f"d{n}", 3, seed=n) for n in range(20)]) for store in stores))
    await asyncio.gather(
        *(store.replace([cut(f"d{n}", 2, "new", seed=k)]) for n in range(5) for k, store in enumerate(stores))
    )
    for store in stores:
        assert await store.count() == (20, 15 * 3 + 5 * 2)
        await store.close()


@pytest.mark.parametrize(
    ("vectors", "word"),
    [(units(2)[:, :5], "vectors"), (units(3), "vectors"), (np.full((2, 16), np.nan, np.float32), "finite")],
    ids=["size", "count", "nan"],
)
async def test_vectors_that_do_not_fit_are_refused_by_name(tmp_path: Path, vectors: np.ndarray, word: str) -> None:
    store = await filled(tmp_path, 2)
    before = await store.version()
    with pytest.raises(ValueError, match=rf"bad\.md: .*{word}"):
        await store.replace([cut("good", 2), replace(cut("bad", 2), vectors=vectors)])
    assert (await store.version(), await store.count()) == (before, (2, 2))
    await store.close()


async def test_an_earlier_version_is_searched_as_it_was(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    await store.index_words()
    then = await store.version()
    await store.replace([cut("d1", 1, "new", seed=77), cut("d9", 1, seed=9)])
    await store.delete(["d2"])
    async with store.at(then) as earlier:
        assert (await earlier.version(), await earlier.count()) == (then, (3, 3))
        found = await earlier.nearest(units(1, seed=1)[0], None, 1)
        assert found["text"].to_pylist() == ["word 0 of d1"]
        words = await earlier.matching("word", None, 9)
        assert words is not None and words.num_rows == 3
    assert await store.count() == (3, 3)
    for gone in (0, -1, 2**40):
        with pytest.raises(InvalidValue, match="not kept; those from 1 to"):
            async with store.at(gone):
                pass
    await store.close()


async def test_clean_up_leaves_a_version_that_is_leased_and_takes_it_afterwards(tmp_path: Path) -> None:
    """LanceDB deletes the files of a version under whoever reads it, and refuses to clean past a tag."""
    store = await filled(tmp_path, 30)
    other = await Store.open(tmp_path, shape())
    then = await store.version()
    async with store.at(then) as earlier:
        for n in range(6):
            await other.replace([cut(f"d{k}", 1, seed=100 * n + k) for k in range(30)])
            await other.compact(timedelta(milliseconds=1))
            found = await earlier.nearest(units(1, seed=7)[0], None, 30)
            assert (found["document_id"].to_pylist()[0], found.num_rows) == ("d7", 30)
            assert len(await earlier.documents()) == 30
    await other.compact(timedelta(milliseconds=1))
    with pytest.raises(InvalidValue, match="not kept"):
        async with store.at(then):
            pass
    assert await nearest(store, units(1, seed=507)[0], 1) == ["d7"]
    await store.close()
    await other.close()


async def test_a_lease_that_its_reader_left_behind_ends(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    await store._table.tags.create("lease-1000-1-1", await store.version())
    await store.replace([cut("d1", 1, seed=5)])
    await store.compact(timedelta(milliseconds=1))
    assert await store._table.tags.list() == {}
    await store.close()


async def test_attributes_that_searches_filter_by_are_indexed_once_it_is_worth_it(tmp_path: Path) -> None:
    store = await filled(tmp_path, 1, chunks=5000)
    await store.set_attributes("d0", {"team": "ops"})
    await store.compact(timedelta(hours=1))
    assert not await store.lacks_index()
    assert (await store.nearest(units(1)[0], "attribute_team = 'ops'", 5)).num_rows == 5
    assert await store.lacks_index()
    await store.compact(timedelta(hours=1))
    assert not await store.lacks_index()
    assert (await store.nearest(units(1)[0], "attribute_team = 'ops'", 5)).num_rows == 5
    await store.close()


async def test_a_document_of_a_table_without_attributes_may_be_given_none(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, replace(shape(), attributes={}))
    await store.replace([cut("a", 2)])
    await store.set_attributes("a", {})
    assert await store.count() == (1, 2)
    await store.close()


async def test_lancedb_says_nothing_of_its_own_beside_the_servers_log(tmp_path: Path) -> None:
    """It would tell of every plan it finds unusual, and of each part of an index that a compaction leaves out."""
    code = (
        "import asyncio, sys\n"
        "from tests.knowledge.tables import filled, units\n"
        "async def main(folder):\n"
        "    store = await filled(folder, 3)\n"
        "    await store._table.vector_search(units(1)[0]).select(['id']).limit(1).to_arrow()\n"
        "from pathlib import Path; asyncio.run(main(Path(sys.argv[1])))\n"
    )
    root = Path(__file__).parents[2]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LANCE")}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code, tmp_path],
        capture_output=True,
        text=True,
        cwd=root,
        env=kept,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_leases_that_end_meanwhile_keep_nobody_from_cleaning_up(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    version = await store.version()
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            async with store.at(version) as earlier:
                assert await earlier.count() == (3, 3)

    async def clean() -> None:
        for _ in range(40):
            assert await store._leases.clearing(timedelta(0)) >= timedelta(0)
        done.set()

    async with asyncio.timeout(60):
        await asyncio.gather(clean(), *(read() for _ in range(8)))
    await store.close()
