"""The reader: it quotes, cites exactly, refuses, and says what it is."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from config.model import ReaderModel
from server.errors import RequestError
from server.models.engine import Engine, Event, Generate, Message, Passage
from tests.models.engines.driving import WEIGHTS, asking, citations, deltas, finished, loaded, text

LIBRARY = """\
# Opening hours

The library opens at nine on weekdays. It closes at six. On Saturdays it is open from ten to two.

# Borrowing

Members may borrow up to twelve books at a time. A book may be kept for four weeks. \
Dr. Amy Reed, who has led the library since 2011, decides about longer loans.
"""
GARDEN = """\
Roses are pruned in late winter. Tomatoes need six hours of sun a day, and water in the morning.

To sow lettuce, do this:

1. Rake the soil.
2. Sow thinly, half a centimetre deep.

```sh
garden plan --month march
```
"""
PASSAGES = [Passage(LIBRARY, "library.md", 0.5), Passage(GARDEN, "garden.md, Spring", 0.4)]


def _answer(reader: Engine, question: str, passages: Sequence[Passage] | None = PASSAGES) -> str:
    [events] = finished(reader, asking(question, passages))
    return text(events)


@pytest.mark.parametrize(
    ("question", "quote", "source"),
    [
        ("How many books may members borrow?", "Members may borrow up to twelve books at a time.", "library.md"),
        ("Who has led the library since 2011?", "Dr. Amy Reed, who has led the library since 2011", "library.md"),
        ("When are roses pruned?", "Roses are pruned in late winter.", "garden.md, Spring"),
        ("How much sun do tomatoes need?", "Tomatoes need six hours of sun a day", "garden.md, Spring"),
    ],
)
def test_a_question_is_answered_by_a_quote_with_its_source(
    question: str, quote: str, source: str, reader: Engine
) -> None:
    said = _answer(reader, question)
    assert quote in said
    assert said.startswith("“")
    assert said.endswith(f"” — {source}")


def test_a_lead_in_is_quoted_with_what_it_leads_to(reader: Engine) -> None:
    assert "To sow lettuce, do this:\n\n1. Rake the soil.\n2. Sow thinly" in _answer(reader, "How do I sow lettuce?")


def test_a_quote_does_not_end_with_a_lead_in(reader: Engine) -> None:
    page = Passage("The colours are:\n\n- red\n- blue\n\nThe sizes are:\n\n" + "- long " * 80, "shop.md", 0.5)
    assert "“The colours are:\n\n- red\n- blue”" in _answer(reader, "What are the colours?", [page])


def test_citations_say_exactly_where_the_quote_stands(reader: Engine) -> None:
    for question in ("How many books may members borrow?", "How do I sow lettuce?", "When are roses pruned?"):
        [events] = finished(reader, asking(question, PASSAGES))
        [cited] = citations(events)
        quote = text(events)[cited.start : cited.end]
        assert quote == PASSAGES[cited.passage].text[cited.quote_start : cited.quote_end]
        assert text(events) == f"“{quote}” — {PASSAGES[cited.passage].source}"
        assert len(quote) <= 400


def test_a_citation_comes_as_soon_as_its_quote_is_complete(reader: Engine) -> None:
    [events] = finished(reader, asking("When are roses pruned?", PASSAGES))
    at = next(place for place, delta in enumerate(deltas(events)) if delta.citations)
    assert "”" in deltas(events)[at].text
    assert deltas(events)[at].finish_reason is None


def test_headings_alone_are_never_quoted(reader: Engine) -> None:
    page = Passage("# Opening hours\n\n# Borrowing\n", "titles.md", 0.9)
    assert _answer(reader, "What are the opening hours?", [page]).startswith("I did not find that in these documents.")


@pytest.mark.parametrize(
    "question", ["Who won the football world cup in 1974?", "What is the boiling point of nitrogen?", "xqzt?"]
)
def test_what_the_passages_do_not_say_is_not_answered(question: str, reader: Engine) -> None:
    [events] = finished(reader, asking(question, PASSAGES))
    assert text(events) == (
        "I did not find that in these documents. None of the 2 passages I read is near enough to the question."
    )
    assert not citations(events)


@pytest.mark.parametrize(
    ("threshold", "question", "beginning"),
    [(1.0, "When are roses pruned?", "I did not find that"), (0.0, "What is the boiling point of nitrogen?", "“")],
)
def test_the_declared_threshold_decides_what_is_near_enough(
    threshold: float, question: str, beginning: str, cache: Path
) -> None:
    engine = loaded(ReaderModel(engine="reader", source=WEIGHTS, threshold=threshold), cache)
    assert _answer(engine, question).startswith(beginning)
    engine.close()


def test_without_a_hit_or_without_a_collection_it_says_which(reader: Engine) -> None:
    assert "holds no passage" in _answer(reader, "When are roses pruned?", [])
    assert "no collection is attached" in _answer(reader, "When are roses pruned?", None)


@pytest.mark.parametrize("passages", [None, [], PASSAGES], ids=["no knowledge", "nothing found", "passages"])
@pytest.mark.parametrize(
    "said",
    [
        "Hello", "hi!", "Hey", "Good morning", "hi there", "hello, how are you?", "Thanks!", "thank you so much", "bye",
        "Who are you?", "what are you", "What can you do?", "What can you do for me?", "Can you help me?",
        "Tell me about yourself.", "Are you an AI?", "Are you ChatGPT?", "What is your name?", "ok", "👋",
    ],
)  # fmt: skip
def test_what_asks_for_no_fact_gets_an_honest_description(
    said: str, passages: list[Passage] | None, reader: Engine
) -> None:
    assert "built-in reader" in _answer(reader, said, passages)


@pytest.mark.parametrize(
    "asked",
    [
        "What can members do?", "Who is Amy Reed?", "What are tomatoes?", "help with roses", "Who are the members?",
        "What can you do with the garden command?", "How do I get help with borrowing?", "hello world in the garden?",
        "What can I borrow?", "Are you open on Saturdays?", "Can you tell me when it closes?", "lettuce",
        "thank-you note rules?", "What is the name of the head of the library?", "Can you help me sow lettuce?",
        "Who are you going to ask about longer loans?", "opening hours", "What time is good in the morning for water?",
    ],
)  # fmt: skip
def test_questions_about_the_documents_are_not_taken_for_small_talk(asked: str, reader: Engine) -> None:
    assert "built-in reader" not in _answer(reader, asked)


def test_the_last_user_message_is_the_question(reader: Engine) -> None:
    said = [
        Message("system", "You are a gardener."),
        Message("user", "How many books may members borrow?"),
        Message("assistant", "Twelve."),
        Message("user", "When are roses pruned?"),
    ]
    [events] = finished(reader, Generate(said, PASSAGES))
    assert "Roses are pruned" in text(events)


def test_the_answer_comes_word_by_word_and_tokens_are_counted(reader: Engine) -> None:
    [events] = finished(reader, asking("When are roses pruned?", PASSAGES))
    assert len(deltas(events)) >= 8
    assert all(delta.tokens > 0 for delta in deltas(events))
    assert [delta.finish_reason for delta in deltas(events)] == [None] * (len(deltas(events)) - 1) + ["stop"]


def test_prompt_tokens_count_the_question_and_the_passages(reader: Engine) -> None:
    alone = reader.submit(1, asking("When are roses pruned?")).prompt_tokens
    with_one = reader.submit(2, asking("When are roses pruned?", [PASSAGES[1]])).prompt_tokens
    reader.cancel(1)
    reader.cancel(2)
    assert 5 <= alone <= 12
    assert with_one > alone + 50


@pytest.mark.parametrize("most", [0, 1, 4, 12])
def test_max_tokens_ends_the_answer_with_length(most: int, reader: Engine) -> None:
    [whole] = finished(reader, asking("When are roses pruned?", PASSAGES))
    [events] = finished(reader, asking("When are roses pruned?", PASSAGES, max_tokens=most))
    assert deltas(events)[-1].finish_reason == "length"
    assert sum(delta.tokens for delta in deltas(events)) <= most
    assert text(whole).startswith(text(events))


def test_just_enough_max_tokens_end_with_stop(reader: Engine) -> None:
    [whole] = finished(reader, asking("When are roses pruned?", PASSAGES))
    enough = sum(delta.tokens for delta in deltas(whole))
    [events] = finished(reader, asking("When are roses pruned?", PASSAGES, max_tokens=enough))
    assert (text(events), deltas(events)[-1].finish_reason) == (text(whole), "stop")


def test_answers_of_concurrent_requests_interleave_and_do_not_mix(reader: Engine) -> None:
    questions = ["When are roses pruned?", "How many books may members borrow?", "hello"]
    alone = [_answer(reader, question) for question in questions]
    for key, question in enumerate(questions):
        reader.submit(key, asking(question, PASSAGES))
    order: list[int] = []
    got: dict[int, list[Event]] = {key: [] for key in range(len(questions))}
    while reader.busy:
        for key, event in reader.step():
            order.append(key)
            got[key].append(event)
    assert [text(got[key]) for key in got] == alone
    assert order != sorted(order)


def test_an_empty_question_is_refused(reader: Engine) -> None:
    with pytest.raises(RequestError, match="no user message"):
        reader.submit(1, asking("  \n", PASSAGES))


def test_a_passage_longer_than_the_window_is_read_whole(reader: Engine) -> None:
    filler = "Nothing of note happened that day. " * 120
    page = Passage(f"{filler}The treasure lies under the old oak. {filler}", "diary.txt", 0.4)
    assert "“The treasure lies under the old oak.”" in _answer(reader, "Where does the treasure lie?", [page])
