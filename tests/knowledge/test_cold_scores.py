"""Cold storage scores by cosine, whether all vectors are compared, an index estimates, or rows came after the index."""

from pathlib import Path

import numpy as np
import pytest

from server.knowledge import index
from server.knowledge.cold import ColdTable
from server.knowledge.store import Store
from tests.knowledge.tables import cut, shape, units

pytestmark = pytest.mark.anyio


async def test_scores_are_cosines_before_and_after_there_is_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "VECTOR_ROWS", 1000)
    store = await Store.open(tmp_path / "warm", shape())
    cuts = [cut("a", 1500), cut("late", 20, seed=1)]
    await store.replace(cuts)
    vectors = {chunk.text: vector for each in cuts for chunk, vector in zip(each.chunks, each.vectors, strict=True)}
    table = await ColdTable.open(tmp_path / "cold", "c", shape(), make=True)
    assert table is not None

    async def scored(moves: int, within: float) -> None:
        await table.follow(moves)
        for question in (units(1, seed=7)[0], cuts[1].vectors[3]):
            found = (await table.nearest(question, None, 30)).to_pylist()
            exact = [1 - float(vectors[row["text"]] @ question) for row in found]
            assert np.allclose([row["_distance"] for row in found], exact, atol=within)

    await table.put(await store.whole(["a"]), ["a"])
    await scored(1, 1e-5)
    await table.settle()
    await scored(2, 0.1)
    await table.put(await store.whole(["late"]), ["late"])
    await scored(3, 1e-5)
    assert (await table.nearest(cuts[1].vectors[3], None, 1))["text"].to_pylist() == ["word 3 of late"]
    await table.settle()
    await scored(4, 0.1)
    await table.close()
    await store.close()
