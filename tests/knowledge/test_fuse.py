"""Fusion of rankings and the way to scores from 0 to 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.fuse import of_bm25, of_cosine, reciprocal_rank, share_of_best

RANKINGS = st.lists(st.text(max_size=3), unique=True, max_size=20)
WEIGHTS = st.floats(0.01, 10)


def test_first_in_both_legs_scores_one() -> None:
    fused = share_of_best(reciprocal_rank([(["a", "b"], 0.6), (["a", "c"], 0.4)]), (0.6, 0.4))
    assert fused["a"] == pytest.approx(1.0)
    assert list(fused) == ["a", "b", "c"]


def test_a_heavier_leg_decides() -> None:
    assert next(iter(reciprocal_rank([(["a"], 1.0), (["b"], 2.0)]))) == "b"


def test_ties_are_broken_by_id() -> None:
    assert list(reciprocal_rank([(["b"], 1.0), (["a"], 1.0)])) == ["a", "b"]


@given(RANKINGS, RANKINGS, WEIGHTS, WEIGHTS)
def test_fused_scores_fall_lie_between_0_and_1_and_name_every_id_once(
    first: list[str], second: list[str], one: float, two: float
) -> None:
    fused = share_of_best(reciprocal_rank([(first, one), (second, two)]), (one, two))
    assert set(fused) == {*first, *second}
    assert all(0 < score <= 1 for score in fused.values())
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_raw_scores_become_0_to_1_in_order() -> None:
    assert [of_cosine(value) for value in (-1.0, 0.0, 0.5, 1.0000001)] == [0, 0, 0.5, 1]
    values = [of_bm25(value) for value in (-1.0, 0.0, 1.0, 8.0, 1e9)]
    assert values[:2] == [0, 0]
    assert values == sorted(values)
    assert values[3] == 0.5
    assert values[-1] <= 1
