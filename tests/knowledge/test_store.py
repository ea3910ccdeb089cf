"""The table itself: one commit for a batch, writes after compaction, indices and their gates."""

from pathlib import Path

import numpy as np
import pytest

from server.knowledge.document import Chunk, Document
from server.knowledge.store import Shape, Store, is_due
from server.knowledge.stored import Cut

pytestmark = pytest.mark.anyio

DIMENSION = 16


def shape(fingerprint: str = "f", probe: int = 0) -> Shape:
    return Shape({"team": "string"}, fingerprint, np.eye(DIMENSION, dtype=np.float32)[probe])


def cut(name: str, chunks: int, word: str = "word", seed: int = 0) -> Cut:
    vectors = np.random.default_rng(seed).normal(size=(chunks, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    text = "x" * chunks
    return Cut(
        Document(id=name, uri=f"{name}.md", filename=f"{name}.md", text=text),
        [Chunk(f"{word} {n} of {name}", n, n + 1, (), "", 4) for n in range(chunks)],
        vectors,
    )


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
            await store.maintain()
    await store.maintain(force=True)
    for n in range(0, 40, 2):
        await store.replace([cut(f"doc{n}", 4, seed=1)])
    await store.maintain(force=True)
    await store.replace([cut(f"doc{n}", 3, "fresh") for n in range(40)])
    assert await store.count() == (40, 120)
    assert await matches(store, "fresh") == 120
    assert await matches(store, "word") == 0


async def test_words_are_found_before_and_after_compaction(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    assert await store.matching("word", None, 5) is None
    await store.replace([cut("a", 3)])
    await store.maintain()
    await store.replace([cut("b", 3, "tail")])
    assert await matches(store, "tail") == 3
    await store.maintain(force=True)
    assert await matches(store, "tail") == 3


async def test_a_table_is_found_again_only_with_the_same_shape_and_model(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    await store.replace([cut("a", 3)])
    store.close()
    same = await Store.open(tmp_path, shape())
    assert (await same.count(), same.older) == ((1, 3), ())
    for other in (shape("g"), shape("f", probe=1)):
        fresh = await Store.open(tmp_path, other)
        assert (await fresh.count(), len(fresh.older) > 0) == ((0, 0), True)


async def test_a_large_table_gets_a_vector_index_that_finds_the_nearest(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, shape())
    big = cut("a", 20_000)
    await store.replace([big])
    await store.maintain()
    found = (await store.nearest(big.vectors[777], None, 3)).to_pylist()
    assert found[0]["text"] == "word 777 of a"
    assert found[0]["_distance"] == pytest.approx(0, abs=1e-3)
    await store.replace([cut("b", 1, "tail", seed=9)])
    tail = cut("b", 1, "tail", seed=9)
    assert (await store.nearest(tail.vectors[0], None, 1)).to_pylist()[0]["document_id"] == "b"


@pytest.mark.parametrize(
    ("fragments", "unindexed", "commits", "due"),
    [(1, 0, 0, False), (63, 4095, 19, False), (64, 0, 0, True), (1, 4096, 0, True), (1, 0, 20, True)],
)
def test_compaction_is_gated(fragments: int, unindexed: int, commits: int, due: bool) -> None:
    assert is_due(fragments, unindexed, commits) is due
