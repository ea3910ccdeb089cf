"""Fusion of scores and the way to scores from 0 to 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.fuse import of_bm25, of_cosine, weighted_sum

SCORES = st.dictionaries(st.text(max_size=3), st.floats(-1, 50), max_size=20)
WEIGHTS = st.floats(0.01, 10)


def test_first_in_both_legs_scores_one() -> None:
    fused = weighted_sum([({"a": 0.9, "b": 0.45}, 0.6), ({"a": 12.0, "c": 3.0}, 0.4)])
    assert fused == {"a": pytest.approx(1.0), "b": pytest.approx(0.3), "c": pytest.approx(0.1)}
    assert list(fused) == ["a", "b", "c"]


def test_a_leg_that_cannot_tell_the_candidates_apart_does_not_decide() -> None:
    vague = {"a": 0.800, "b": 0.799, "c": 0.798}
    assert next(iter(weighted_sum([(vague, 1.0), ({"c": 9.0, "a": 1.0}, 1.0)]))) == "c"


def test_a_heavier_leg_decides() -> None:
    assert next(iter(weighted_sum([({"a": 1.0}, 1.0), ({"b": 1.0}, 2.0)]))) == "b"


def test_ties_are_broken_by_id_and_empty_legs_count_for_nothing() -> None:
    assert list(weighted_sum([({"b": 1.0}, 1.0), ({"a": 5.0}, 1.0), ({}, 1.0)])) == ["a", "b"]
    assert weighted_sum([({"a": -1.0, "b": 0.0}, 1.0)]) == {"a": 0.0, "b": 0.0}


@given(SCORES, SCORES, WEIGHTS, WEIGHTS)
def test_fused_scores_fall_lie_between_0_and_1_and_name_every_id_once(
    first: dict[str, float], second: dict[str, float], one: float, two: float
) -> None:
    fused = weighted_sum([(first, one), (second, two)])
    assert set(fused) == {*first, *second}
    assert all(0 <= score <= 1 for score in fused.values())
    assert list(fused.values()) == sorted(fused.values(), reverse=True)


def test_raw_scores_become_0_to_1_in_order() -> None:
    assert [of_cosine(value) for value in (-1.0, 0.0, 0.5, 1.0000001)] == [0, 0, 0.5, 1]
    values = [of_bm25(value) for value in (-1.0, 0.0, 1.0, 8.0, 1e9)]
    assert values[:2] == [0, 0]
    assert values == sorted(values)
    assert values[3] == 0.5
    assert values[-1] <= 1
