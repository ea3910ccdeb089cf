"""Chunks of llama.cpp into events, where they say what a sound llama.cpp seldom says."""

import json
from typing import Any

import pytest

from server.models.engine import Delta, Event, Failed, Grammar
from server.models.engines.llamacpp.wire import Answer, held


def chunk(text: str, predicted: int, reason: str | None = None, cached: int = 0) -> bytes:
    said: dict[str, Any] = {"choices": [{"text": text, "finish_reason": reason}]}
    return json.dumps({**said, "timings": {"predicted_n": predicted, "cache_n": cached}}).encode()


def events(answer: Answer, *chunks: bytes) -> list[Event]:
    return [event for each in chunks for event in answer.read(each)]


def test_progress_of_the_prompt_is_no_event() -> None:
    told = events(Answer([], None), chunk("", 0, cached=7), chunk("a", 1, cached=7))
    assert told == [Delta("a", tokens=1, cached_tokens=7)]


def test_the_token_that_ends_an_answer_is_no_part_of_it() -> None:
    told = events(Answer([], None), chunk("a", 1), chunk("", 2), chunk("", 2, "stop"))
    assert told == [Delta("a", tokens=1), Delta(finish_reason="stop")]


def test_a_hidden_token_at_the_limit_counts() -> None:
    told = events(Answer([], None), chunk("a", 1), chunk("", 2), chunk("", 2, "length"))
    assert told == [Delta("a", tokens=1), Delta(tokens=1), Delta(finish_reason="length")]


def test_a_character_of_several_tokens_counts_them_all() -> None:
    assert events(Answer([], None), chunk("\N{SNOWMAN}", 3)) == [Delta("\N{SNOWMAN}", tokens=3)]


@pytest.mark.parametrize(("status", "code"), [(400, "invalid_request"), (500, "service_error")])
def test_a_refusal_of_llama_cpp_is_a_fault_of_its_kind(status: int, code: str) -> None:
    [told] = Answer([], None).read(json.dumps({"error": {"code": status, "message": "no"}}).encode())
    assert told == Failed(code, "llama.cpp refused: no")


@pytest.mark.parametrize(
    "chunks",
    [(chunk("b", 1),), (chunk("a", 1), chunk("", 1, "stop"))],
    ids=["says what it may not", "ends where it may not"],
)
def test_an_answer_that_leaves_its_grammar_fails(chunks: tuple[bytes, ...]) -> None:
    answer = Answer([], None, held(Grammar("regex", "ax")))
    told = events(answer, *chunks)
    assert isinstance(told[-1], Failed)
    assert "did not follow the grammar" in told[-1].message


def test_an_answer_within_its_grammar_passes() -> None:
    answer = Answer([], None, held(Grammar("regex", "a\N{SNOWMAN}")))
    told = events(answer, chunk("a", 1), chunk("\N{SNOWMAN}", 4), chunk("", 4, "stop"))
    assert [event for event in told if isinstance(event, Failed)] == []


def test_a_grammar_that_names_tokens_is_left_to_llama_cpp() -> None:
    assert held(Grammar("lark", 'start: <[3]> "a"')) is None
    assert held(Grammar("lark", 'start: "a"')) is not None
