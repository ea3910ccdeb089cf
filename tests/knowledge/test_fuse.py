"""Fusion of scores, the weights of its legs, and the way to scores from 0 to 1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.knowledge.fuse import Scale, fused, of_bm25, of_cosine, weights_of, words

SCORES = st.dictionaries(st.text(max_size=3), st.floats(-1, 50), max_size=50)
WEIGHTS = st.floats(0.01, 10)
UNIT = st.floats(0, 1)


def in_order(cosines: dict[str, float], scores: dict[str, float], query: str = "some words") -> list[str]:
    return list(fused(cosines, scores, (0.6, 0.4), Scale.of(query, scores.values(), cosines.values())))


def test_a_chunk_that_both_legs_find_comes_first() -> None:
    assert in_order({"a": 0.8, "b": 0.7}, {"b": 12.0, "c": 11.0}) == ["b", "a", "c"]


def test_a_leg_that_cannot_tell_the_candidates_apart_does_not_decide() -> None:
    vague = {"a": 0.800, "b": 0.799, "c": 0.798}
    assert in_order(vague, {"c": 9.0, "a": 1.0})[0] == "c"
    common = {f"{n:02}": 2.0 for n in range(40)}
    assert in_order({"17": 0.7, "03": 0.5}, common)[:2] == ["17", "03"]


def test_what_words_found_is_not_held_back_by_a_cosine_below_the_crowds() -> None:
    crowd = {f"{n:02}": 0.6 - n / 1000 for n in range(40)}
    assert in_order(crowd | {"far": 0.1, "near": 0.58}, {"far": 9.0, "near": 8.5})[:2] == ["far", "near"]
    assert in_order({"far": 0.1, "near": 0.58}, {"far": 9.0, "near": 8.5})[:2] == ["near", "far"]
    assert in_order(crowd, {}) == sorted(crowd)


def test_words_count_less_where_even_the_best_chunk_has_few_of_them() -> None:
    scores = np.array([6.0, 1.0])
    few, many = (Scale.of(query, scores.tolist(), []) for query in ("one word", "one word of very many " * 5))
    assert few.share(scores)[0] > 2 * many.share(scores)[0]


def test_a_heavier_leg_decides() -> None:
    legs = {"a": 0.9}, {"b": 20.0}
    scale = Scale.of("a query", [20.0], [0.9])
    assert next(iter(fused(*legs, (1.0, 0.1), scale))) == "a"
    assert next(iter(fused(*legs, (0.1, 1.0), scale))) == "b"


def test_ties_are_broken_by_id_and_empty_legs_count_for_nothing() -> None:
    assert in_order({"b": 0.5, "a": 0.5}, {}) == ["a", "b"]
    assert fused({}, {"a": 0.0}, (1.0, 1.0), Scale.of("", [0.0], [])) == {"a": 0.0}
    assert fused({}, {}, (1.0, 1.0), Scale.of("x", [], [])) == {}


@given(st.dictionaries(st.text(max_size=3), st.floats(-1, 1), max_size=20), SCORES, WEIGHTS, WEIGHTS)
def test_fused_scores_lie_between_0_and_1_and_name_every_id_once(
    cosines: dict[str, float], scores: dict[str, float], one: float, two: float
) -> None:
    found = fused(cosines, scores, (one, two), Scale.of("a query", scores.values(), cosines.values()))
    assert set(found) == {*cosines, *scores}
    assert all(0 <= score <= 1 for score in found.values())
    assert list(found.values()) == sorted(found.values(), reverse=True)


@given(st.lists(st.floats(0.01, 50), min_size=1, max_size=60))
def test_words_alone_keep_their_order(scores: list[float]) -> None:
    by_id = {f"{n:02}": score for n, score in enumerate(scores)}
    found = fused({}, by_id, (0.0, 1.0), Scale.of("a query", scores, []))
    ranked = [by_id[key] for key in found]
    assert ranked == pytest.approx(sorted(scores, reverse=True), rel=1e-9)


def test_weights_follow_what_the_vectors_find_beside_the_words() -> None:
    healthy, foreign, records, deaf = (weights_of(*each) for each in ((0.5, 0.5), (0.25, 0.5), (0.0, 0.0), (0.0, 0.7)))
    assert 0.6 < healthy[0] < 0.7
    assert healthy[0] > foreign[0] > records[0] > deaf[0]
    assert deaf[0] < 0.05
    assert weights_of(0.6, 0.4) == weights_of(0.9, 0.4) > healthy


@given(UNIT, UNIT)
def test_weights_are_1_together(vector: float, text: float) -> None:
    assert sum(weights_of(vector, text)) == pytest.approx(1)


def test_words_are_counted_in_every_script() -> None:
    assert words("The port is 8080, isn't it?") == ["The", "port", "is", "8080", "isn", "t", "it"]
    assert len(words("東京は日本の首都です")) == 5
    assert words("Größe überprüfen") == ["Größe", "überprüfen"]


def test_raw_scores_become_0_to_1_in_order() -> None:
    assert [of_cosine(value) for value in (-1.0, 0.0, 0.5, 1.0000001)] == [0, 0, 0.5, 1]
    values = [of_bm25(value) for value in (-1.0, 0.0, 1.0, 8.0, 1e9)]
    assert values[:2] == [0, 0]
    assert values == sorted(values)
    assert values[3] == 0.5
    assert values[-1] <= 1
