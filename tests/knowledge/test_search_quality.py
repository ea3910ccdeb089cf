"""How well a search finds, by the handbook's own questions: never much worse than the better leg, whichever that is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.retrieval.bench import Embedder, qualities
from bench.retrieval.yardsticks import Yardstick, foreign, handbook

pytestmark = pytest.mark.anyio

QUESTIONS = 60


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(tmp_path_factory.mktemp("weights"))


def plain() -> Yardstick:
    whole = handbook()
    step = len(whole.questions) // QUESTIONS
    return Yardstick(whole.name, whole.texts, whole.questions[::step][:QUESTIONS])


async def test_both_legs_together_find_better_than_each(embedder: Embedder, tmp_path: Path) -> None:
    found = await qualities(plain(), embedder, tmp_path)
    assert found["vector"].ndcg > 0.6
    assert found["text"].ndcg > 0.6
    assert found["hybrid"].ndcg > max(found["vector"].ndcg, found["text"].ndcg)


@pytest.mark.parametrize(
    ("made", "better", "behind"),
    [
        pytest.param(lambda: foreign(plain())[0], "text", 0.01, id="no word is the model's"),
        # Short questions share a stray word with some section, which no statistic of the collection foresees.
        pytest.param(lambda: foreign(plain())[2], "vector", 0.02, id="questions in another language"),
    ],
)
async def test_a_leg_that_finds_nothing_does_not_drown_the_other(
    embedder: Embedder, tmp_path: Path, made: Callable[[], Yardstick], better: str, behind: float
) -> None:
    found = await qualities(made(), embedder, tmp_path)
    assert found[better].ndcg > 0.5
    assert found["hybrid"].ndcg > found[better].ndcg - behind
