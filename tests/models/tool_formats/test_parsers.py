"""Calls are read the same however an answer is cut, markers never show, and what is no call stays text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.models.tool_formats import CallArguments, CallStart, ToolFormat, format_of
from server.models.tool_formats.hermes import Hermes
from server.models.tool_formats.mistral import Mistral
from server.models.tool_formats.whole import Json, Llama3
from tests.models.tool_formats.reading import pieces, read

HERMES, MISTRAL, MISTRAL_ARGS, LLAMA3, JSON = Hermes(), Mistral(args=False), Mistral(args=True), Llama3(), Json()

WEATHER = ("weather", '{"city": "Köln", "days": [1, 2]}')
TIME = ("time", "{}")
CALLS: list[tuple[ToolFormat, str, str, list[tuple[str, str]]]] = [
    (HERMES, '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>', "", [TIME]),
    (HERMES, 'Let me look.\n<tool_call>{"name":"time","arguments":{}}</tool_call>', "Let me look.", [TIME]),
    (
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        "",
        [WEATHER, TIME],
    ),
    (HERMES, '<tool_call>\n{"arguments": {}, "name": "time"}\n</tool_call>', "", [TIME]),
    (HERMES, '<tool_call>{"name": "time", "arguments": {}}', "", [TIME]),
    (HERMES, '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_c', "", [TIME]),
    (MISTRAL, '[TOOL_CALLS] [{"name": "time", "arguments": {}}]', "", [TIME]),
    (
        MISTRAL,
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Köln", "days": [1, 2]}}, '
        '{"name": "time", "arguments": {}, "id": "abc123def"}]',
        "",
        [WEATHER, TIME],
    ),
    (
        MISTRAL_ARGS,
        '[TOOL_CALLS]weather[ARGS]{"city": "Köln", "days": [1, 2]}[TOOL_CALLS]time[CALL_ID]a1b2c3d4e[ARGS]{}',
        "",
        [WEATHER, TIME],
    ),
    (LLAMA3, '{"name": "weather", "parameters": {"city": "Köln", "days": [1, 2]}}', "", [WEATHER]),
    (LLAMA3, '<|python_tag|>{"name": "time", "parameters": {}}', "", [TIME]),
    (LLAMA3, '{"name": "time", "parameters": {}}; {"name": "time", "parameters": {}}', "", [TIME, TIME]),
    (JSON, '{"name": "time", "arguments": {}}', "", [TIME]),
    (JSON, '[{"name": "time", "arguments": {}}, {"name": "time", "arguments": {}}]', "", [TIME, TIME]),
    (JSON, '{"name": "time", "arguments": "{}"}', "", [TIME]),
]

PLAIN: list[tuple[ToolFormat, str]] = [
    (HERMES, "A tag is written <tool_call> and closed."),
    (HERMES, 'Look: {"name": "time", "arguments": {}}'),
    (HERMES, "1 < 2 and <tool is not a marker"),
    (HERMES, "<tool_call>\nnothing\n</tool_call>"),
    (MISTRAL, "[TOOL_CALLS] none today"),
    (MISTRAL, "[1, 2, 3]"),
    (LLAMA3, '{"city": "Köln"}'),
    (LLAMA3, 'Use {"name": "time", "parameters": {}} for it.'),
    (JSON, "[1, 2]"),
    (JSON, "{not json}"),
]


@pytest.mark.parametrize(("form", "answer", "text", "calls"), CALLS)
def test_calls_are_read_however_the_answer_is_cut(
    form: ToolFormat, answer: str, text: str, calls: list[tuple[str, str]]
) -> None:
    for size in (None, 1, 2, 3, 7):
        assert read(form, answer, size) == (text, calls)


@pytest.mark.parametrize(("form", "answer"), PLAIN)
def test_what_is_no_call_is_text_as_it_stands(form: ToolFormat, answer: str) -> None:
    for size in (None, 1, 5):
        assert read(form, answer, size) == (answer, [])


def test_arguments_stream_before_the_call_is_whole() -> None:
    parser = HERMES.parser()
    assert parser.feed('<tool_call>\n{"name": "weather", "arguments": {"city": ') == [
        CallStart(0, "weather"),
        CallArguments(0, '{"city": '),
    ]


def test_a_call_whose_json_breaks_keeps_what_was_sent() -> None:
    text, calls = read(HERMES, '<tool_call>{"name": "time", "arguments": {"a": 1}} trailing', 1)
    assert calls == [("time", '{"a": 1}')]
    assert "trailing" in text


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{{ messages }} <tool_call>", "hermes"),
        ("[TOOL_CALLS] {{ x }}", "mistral"),
        ("[TOOL_CALLS]{{ name }}[ARGS]", "mistral-args"),
        ("<|start_header_id|> {% if tools %}", "llama3"),
        ("<|start_header_id|> {{ messages }}", "json"),
        ("{{ messages }}", "json"),
    ],
)
def test_the_template_tells_the_format(template: str, name: str) -> None:
    assert format_of(template).name == name


SNIPPETS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", '{"name": "f", '),
        *('"arguments": {', "}}", "[", "]", "{", "}", '"', "\\", "\n", " ", "a", "é", "name", ", ", "null", "1"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SNIPPETS, max_size=14).map("".join), st.integers(1, 5), st.sampled_from(range(5)))
def test_any_answer_is_read_the_same_in_any_pieces(answer: str, size: int, which: int) -> None:
    form = (HERMES, MISTRAL, MISTRAL_ARGS, LLAMA3, JSON)[which]
    assert read(form, answer, size) == read(form, answer)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab<>[]{}" tool_callTOOL_CALLS', max_size=60))
def test_text_without_a_call_passes_whole(answer: str) -> None:
    """Nothing is lost: without a call every character comes back."""
    for form in (HERMES, MISTRAL):
        text, calls = read(form, answer, 1)
        if not calls:
            assert text == answer


def test_pieces_come_at_the_end_for_held_text() -> None:
    assert read(HERMES, "almost <tool_cal", 1) == ("almost <tool_cal", [])
    assert pieces(HERMES, []) == []
