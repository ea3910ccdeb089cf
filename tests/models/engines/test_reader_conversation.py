"""What the reader makes of a conversation: lists, texts given in messages, follow-ups, results of tools."""

from collections.abc import Sequence

import pytest

from server.chat.loop import _DATA
from server.models.engine import Engine, Event, Generate, Message, Passage, ToolCall
from tests.models.engines.driving import citations, finished, text

SHOP = """\
# Bicycles

The red bicycle costs 499 euros and weighs 12 kg. The blue bicycle costs 650 euros. The price of the Falcon X2 \
is 2,400 euros.

# Repairs

Repairs are done by Anna Berg in the workshop in Potsdam. The workshop is open from Monday to Thursday.
"""
STAFF = (
    "Our shop has three branches. The branch in Berlin is led by Tom Weber. The branch in Hamburg is led by Lena Koch. "
    "The branch in Munich is led by Omar Aziz. We sell bicycles, helmets and lamps."
)
PASSAGES = [Passage(SHOP, "shop.md", 0.5), Passage(STAFF, "staff.md", 0.4)]


def _said(reader: Engine, *turns: str, system: str = "", passages: Sequence[Passage] | None = None) -> list[Event]:
    """What is answered to the last of `turns`, which are the user's and the assistant's by turns."""
    messages = [Message("user" if number % 2 == 0 else "assistant", each) for number, each in enumerate(turns)]
    if system:
        messages.insert(0, Message("system", system))
    [events] = finished(reader, Generate(messages, None if passages is None else list(passages)))
    return events


def test_a_question_for_several_things_gets_several_quotes_each_with_its_citation(reader: Engine) -> None:
    events = _said(reader, "List the people who lead a branch.", passages=PASSAGES)
    lines = text(events).splitlines()
    assert len(lines) >= 2
    assert len(set(lines)) == len(lines)
    assert all("is led by" in line and line.endswith("” — staff.md") for line in lines)
    cited = citations(events)
    assert len(cited) == len(lines)
    for each in cited:
        assert text(events)[each.start : each.end] == PASSAGES[each.passage].text[each.quote_start : each.quote_end]


def test_a_question_for_one_thing_gets_one_quote(reader: Engine) -> None:
    events = _said(reader, "Who leads the branch in Hamburg?", passages=PASSAGES)
    assert text(events) == "“The branch in Hamburg is led by Lena Koch.” — staff.md"
    assert len(citations(events)) == 1


def test_the_same_sentence_of_two_documents_is_quoted_once(reader: Engine) -> None:
    twice = [Passage(STAFF, "staff.md", 0.5), Passage(STAFF, "copy.md", 0.5)]
    lines = text(_said(reader, "List the people who lead a branch.", passages=twice)).splitlines()
    assert len({line.partition("”")[0] for line in lines}) == len(lines)


PROMPTS = {
    "langchain": (
        "",
        "Use the following pieces of context to answer the question at the end. If you don't know the answer, just say "
        f"that you don't know.\n\n{SHOP}\n\n{STAFF}\n\nQuestion: Who leads the branch in Munich?\nHelpful Answer:",
    ),
    "llamaindex": (
        "",
        f"Context information is below.\n---------------------\n{SHOP}\n\n{STAFF}\n---------------------\nGiven the "
        "the context information and not prior knowledge, answer the query.\nQuery: "
        "Who leads the branch in Munich?\nAnswer: ",
    ),
    "system": (
        f"Use the following pieces of context to answer the user's question.\n----------------\n{SHOP}\n\n{STAFF}",
        "Who leads the branch in Munich?",
    ),
    "beside": ("", f"{STAFF}\n\nWho leads the branch in Munich?"),
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_text_in_the_messages_is_answered_from(kind: str, reader: Engine) -> None:
    system, said = PROMPTS[kind]
    events = _said(reader, said, system=system)
    assert text(events) == "“The branch in Munich is led by Omar Aziz.”"
    assert citations(events) == []


def test_what_a_given_text_does_not_say_is_refused(reader: Engine) -> None:
    said = text(_said(reader, f"Context: {STAFF}\nQuestion: Who won the football world cup in 1974?"))
    assert "did not find" in said


def test_a_long_given_text_is_searched_through(reader: Engine) -> None:
    filler = "Nothing of note happened that day, and nobody wrote about it. " * 12
    long = "\n\n".join([filler, filler, filler, "The treasure lies under the old oak.", filler])
    assert "old oak" in text(_said(reader, f"Context: {long}\nQuestion: Where does the treasure lie?"))


def test_citations_beside_a_given_text_point_at_the_passages_of_the_request(reader: Engine) -> None:
    given = f"Context: {'Lamps are sold in winter. ' * 8}\nQuestion: Who leads the branch in Hamburg?"
    events = _said(reader, given, passages=PASSAGES)
    [cited] = citations(events)
    assert cited.passage == 1
    assert STAFF[cited.quote_start : cited.quote_end] == "The branch in Hamburg is led by Lena Koch."


@pytest.mark.parametrize(
    ("before", "asked", "quote"),
    [
        ("How much does the red bicycle cost?", "what about the blue one?", "The blue bicycle costs 650 euros."),
        ("What is the Falcon X2?", "and its price?", "The price of the Falcon X2 is 2,400 euros."),
        (
            "Who does the repairs in the workshop?",
            "And when is it open?",
            "The workshop is open from Monday to Thursday.",
        ),
    ],
)
def test_a_follow_up_is_answered_with_what_was_said_before(before: str, asked: str, quote: str, reader: Engine) -> None:
    assert f"“{quote}”" in text(_said(reader, before, "...", asked, passages=PASSAGES))


def test_thanks_after_a_question_are_no_follow_up(reader: Engine) -> None:
    assert "built-in reader" in text(_said(reader, "What is the Falcon X2?", "...", "thank you!", passages=PASSAGES))


# ---- results of tools -----------------------------------------------------------------------------------------------


def _after(result: str, reader: Engine, name: str | None = None) -> str:
    messages = [
        Message("user", "What is the weather in Paris tomorrow?"),
        Message("assistant", "", tool_calls=[ToolCall("c1", "get_weather", '{"city": "Paris"}')]),
        Message("tool", result, name, tool_call_id="c1"),
    ]
    [events] = finished(reader, Generate(messages))
    assert citations(events) == []
    return text(events)


def test_a_result_is_quoted_under_the_name_of_its_tool(reader: Engine) -> None:
    assert _after("Sunny, 22 degrees.", reader) == "“Sunny, 22 degrees.” — get_weather"


def test_a_result_of_nothing_is_told_as_such(reader: Engine) -> None:
    assert _after("", reader) == "“(no result)” — get_weather"


def test_of_a_long_result_the_sentence_that_answers_is_quoted(reader: Engine) -> None:
    filler = "The station was built of stone by hand many years ago. " * 12
    said = _after(f"{filler}The weather in Paris tomorrow will be sunny with 22 degrees. {filler}", reader)
    assert said == "“The weather in Paris tomorrow will be sunny with 22 degrees.” — get_weather"


def test_what_the_turn_says_before_a_result_is_not_quoted(reader: Engine) -> None:
    told = _DATA.format(name="get_weather") + "Sunny."
    assert _after(told, reader, "get_weather") == "“Sunny.” — get_weather"
