"""The scoring of sentences: pure numbers."""

import numpy as np
import pytest

from server.models.engines.reader.nearness import CARRIED, MEANING, PASSAGE, WORDS, Shares, nearness, shares, words


def test_words_leave_out_what_carries_no_meaning_and_meet_their_other_forms() -> None:
    assert words("What does it cost?") == words("The costs.")
    assert words("How do I?") == []


def test_shares_are_of_the_question_and_rare_words_count_more() -> None:
    texts = ["Birds sing.", "Birds fly.", "Birds swim in Peru.", "Nothing."]
    own = shares("Which birds live in Peru?", texts, [None] * 4).own
    assert own[2] > 2 * own[0] == 2 * own[1] > 0
    assert own[3] == 0
    assert own.max() <= 1


def test_a_sentence_carries_the_words_of_the_one_before_that_it_lacks() -> None:
    texts = ["The bridge in Porto is old.", "It was built in 1886.", "The bridge is red."]
    found = shares("When was the Porto bridge built?", texts, [None, 0, 1])
    assert found.carried[0] == 0
    assert found.carried[1] == pytest.approx(found.own[0])
    assert found.own[2] > 0
    assert found.carried[2] == pytest.approx(found.own[1])


@pytest.mark.parametrize("question", ["", "How do I?", "???"])
def test_a_question_without_words_shares_none(question: str) -> None:
    found = shares(question, ["A text."], [None])
    assert found.own.tolist() == found.carried.tolist() == [0.0]


def test_nearness_stays_from_0_to_1() -> None:
    assert pytest.approx(1.0) == MEANING + WORDS + PASSAGE + CARRIED
    question = np.array([1.0, 0.0], np.float32)
    sentences = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    ones, zeros = np.ones(2), np.zeros(2)
    assert nearness(question, sentences, Shares(ones, ones), [1, 1])[0] == pytest.approx(1.0)
    assert nearness(question, sentences, Shares(zeros, zeros), [0, 0])[1] == 0.0
