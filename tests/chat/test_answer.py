"""One answer's way: reasoning, calls and stop strings, whatever the engine's pieces are."""

from typing import Any

import pytest

from server.chat import Answer, Part
from server.chat.answer import Marks
from server.knowledge import Hit
from server.models.engine import Delta, Event, TokenLogprob
from server.models.reasoning import ReasoningSplitter
from server.models.stop import StopScanner
from server.models.tool_formats import CallArguments, CallStart
from server.models.tool_formats.hermes import Hermes

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def parts(
    text: str, *, size: int = 1, reason: str = "stop", stop: tuple[str, ...] = (), tools: bool = False, **facts: Any
) -> list[Part]:
    """What becomes of `text` when it arrives in pieces of `size` characters and the model then ends."""
    answer = Answer(
        StopScanner(stop), (), splitter=ReasoningSplitter(), parser=Hermes().parser() if tools else None, **facts
    )
    events: list[Event] = [Delta(text[at : at + size], 1) for at in range(0, len(text), size)]
    events.append(Delta(finish_reason=reason))
    return [part for event in events for part in answer.take([event])]


def summary(found: list[Part]) -> tuple[str, str, list[str], str | None]:
    """Content, reasoning, the calls as text, and the reason."""
    calls: list[str] = []
    for piece in (piece for part in found for piece in part.calls):
        match piece:
            case CallStart(name=name):
                calls.append(name)
            case CallArguments(text=text):
                calls[-1] += text
    content, reasoning = "".join(part.text for part in found), "".join(part.reasoning for part in found)
    return content, reasoning, calls, found[-1].finish_reason


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_reasoning_content_and_calls_are_told_apart(size: int) -> None:
    found = parts(f"<think>\nHm.\n</think>\n\nLook:\n{CALL}", size=size, tools=True)
    assert summary(found) == ("Look:", "Hm.\n", ['f{"a": 1}'], "tool_calls")


def test_only_the_last_part_has_a_reason() -> None:
    found = parts("one two")
    assert [part.finish_reason for part in found] == [None] * (len(found) - 1) + ["stop"]


def test_an_answer_cut_off_inside_a_call_says_length() -> None:
    assert summary(parts(CALL[:40], tools=True, reason="length"))[3] == "length"


def test_without_parallel_calls_the_answer_ends_after_the_first() -> None:
    assert summary(parts(f"{CALL}\n{CALL}", tools=True, many=False))[2:] == (['f{"a": 1}'], "tool_calls")
    assert summary(parts(f"{CALL}\n{CALL}", tools=True))[2] == ['f{"a": 1}'] * 2


def test_stop_strings_end_the_content_and_do_not_look_into_reasoning_or_arguments() -> None:
    assert summary(parts("<think>a STOP b</think>c STOP d", stop=("STOP",))) == ("c ", "a STOP b", [], "stop")
    assert summary(parts(CALL, stop=("a",), tools=True))[2] == ['f{"a": 1}']


def test_tokens_of_reasoning_are_counted_apart() -> None:
    found = parts("<think>ab</think>cd")
    assert sum(part.tokens for part in found) == 19
    assert sum(part.reasoning_tokens for part in found) == 2


def test_the_log_probabilities_of_what_a_stop_string_cut_are_not_sent() -> None:
    answer = Answer(StopScanner(("b",)), ())
    logprob = TokenLogprob("x", b"x", -1.0)
    found = answer.take([Delta("a", 1, logprobs=[logprob]), Delta("b", 1, logprobs=[logprob])])
    assert [len(part.logprobs) for part in found] == [1, 0]


def hit(number: int) -> Hit:
    return Hit(f"c{number}", "k", f"d{number}", f"{number}.md", "", "", "", f"text {number}", 0.5, {}, 0, 6, 2, {})


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_marks_are_found_where_an_answer_names_passages_by_number(size: int) -> None:
    text = "High tide [2]. See [1, 2] and [9] or a[0], b[12, [1]."
    marks = Marks([hit(0), hit(1)], sent=10)
    found = [cited for at in range(0, len(text), size) for cited in marks.feed(text[at : at + size])]
    assert [(text[each.start - 10 : each.end - 10], each.hit.filename) for each in found] == [
        ("[2]", "1.md"),
        ("[1, 2]", "0.md"),
        ("[1, 2]", "1.md"),
        ("[1]", "0.md"),
    ]


@pytest.mark.parametrize("size", [1, 1000])
def test_the_beginning_of_a_forced_call_that_was_cut_is_no_text(size: int) -> None:
    for cut in ("<tool_c", '<tool_call>\n{"name": "f', CALL[:-3]):
        content, *_, reason = summary(parts(cut, size=size, reason="length", tools=True, forced=True))
        assert (content, reason) == ("", "length")
    assert summary(parts("<tool_c", size=size, reason="length", tools=True))[0] == "<tool_c"
