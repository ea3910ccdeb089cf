"""The echo engine: exact text, exact counts, a pace."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import EchoModel
from server.models.engine import Engine, Generate, Message
from server.models.engines.echo import EchoEngine, tokens
from tests.models.engines.driving import asking, deltas, finished, text


@given(st.text())
def test_the_tokens_of_a_text_are_the_text(said: str) -> None:
    assert "".join(tokens(said)) == said
    assert all(tokens(said))


def test_the_last_user_message_comes_back_token_by_token(echo: Engine) -> None:
    said = [Message("user", "first"), Message("assistant", "ok"), Message("user", "two  words\n"), Message("tool", "x")]
    [events] = finished(echo, Generate(said))
    assert text(events) == "two  words\n"
    assert [delta.tokens for delta in deltas(events)] == [1, 1, 1]
    assert deltas(events)[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("most", "answer", "reason"),
    [(None, "a b c", "stop"), (3, "a b c", "stop"), (2, "a b", "length"), (9, "a b c", "stop")],
)
def test_max_tokens_cuts_the_answer_and_says_so(most: int | None, answer: str, reason: str, echo: Engine) -> None:
    [events] = finished(echo, asking("a b c", max_tokens=most))
    assert text(events) == answer
    assert sum(delta.tokens for delta in deltas(events)) == len(answer.split())
    assert deltas(events)[-1].finish_reason == reason


def test_an_empty_message_gets_an_empty_answer(echo: Engine) -> None:
    [events] = finished(echo, asking(""))
    assert (text(events), deltas(events)[-1].finish_reason) == ("", "stop")


def test_requests_advance_together_one_token_a_step(echo: Engine) -> None:
    echo.submit(1, asking("a b c"))
    echo.submit(2, asking("d e"))
    assert [key for key, _ in echo.step()] == [1, 2]
    assert [key for key, _ in echo.step()] == [1, 2]
    assert [key for key, _ in echo.step()] == [1]
    assert not echo.busy


def test_a_declared_pace_is_kept_without_spinning() -> None:
    engine = EchoEngine(EchoModel(engine="echo", tokens_per_second=50))
    engine.load(lambda _: None)
    started = time.monotonic()
    engine.submit(1, asking("one two three four five"))
    count = 0
    while engine.busy:
        engine.step()
        count += 1
    # A lower bound only: however slow the machine, five tokens at 50 a second never take less.
    assert time.monotonic() - started >= 5 / 50
    # It sleeps until the next token is due instead of spinning.
    assert count < 50
