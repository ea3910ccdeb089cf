"""How well a search finds, whichever leg is the better one, in three languages and by some hundreds of questions each.

Fusing the legs by their ranks falls far behind the better leg on the same questions, which shows that they can tell.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bench.retrieval.bench import RANK_FUSION, Embedder, qualities
from bench.retrieval.yardstick import Yardstick
from bench.retrieval.yardsticks import foreign, handbook
from tests.knowledge.made_pages import CHINESE, GERMAN

pytestmark = pytest.mark.anyio

LEAST = 220
"""Questions of each yardstick: the mean of what a question gains or loses by the fusion is then off by 0.01 or so."""
CHARACTERS = 180
"""Of a section of the handbook, and two sections in three, so that this takes seconds."""


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(tmp_path_factory.mktemp("weights"))


def sections() -> Yardstick:
    whole = handbook()
    texts = {each: text[:CHARACTERS] for each, text in whole.texts.items() if int(each) % 3}
    return replace(whole, texts=texts, questions=[each for each in whole.questions if each[1] in texts])


async def test_both_legs_together_find_better_than_each(embedder: Embedder, tmp_path: Path) -> None:
    found = await qualities(sections(), embedder, tmp_path, built_in=False)
    better = max(found["vector"].ndcg, found["text"].ndcg)
    assert min(found["vector"].ndcg, found["text"].ndcg) > 0.5
    assert found["hybrid"].ndcg > better + 0.01
    assert found["hybrid"].recall > max(found["vector"].recall, found["text"].recall)


@pytest.mark.parametrize(
    ("made", "better"),
    [
        pytest.param(lambda: foreign(sections())[2], "vector", id="questions in another language than the pages"),
        pytest.param(GERMAN.yardstick, "text", id="German"),
        pytest.param(CHINESE.yardstick, "text", id="Chinese"),
    ],
)
async def test_a_leg_that_finds_little_does_not_drown_the_other(
    embedder: Embedder, tmp_path: Path, made: Callable[[], Yardstick], better: str
) -> None:
    yardstick = made()
    found = await qualities(yardstick, embedder, tmp_path, built_in=False)
    assert len(yardstick.questions) >= LEAST
    assert found[better].ndcg > 0.5
    assert found[RANK_FUSION].ndcg < found[better].ndcg - 0.03
    assert found["hybrid"].ndcg > found[better].ndcg - 0.01
