"""The question of a conversation: found in the prompts of frameworks, and completed from what was said before."""

import pytest

from server.models.engine import Message
from server.models.question import asked_last, follows, joined, prompt, told

FACTS = "The library opens at nine.\n\nRoses are pruned in late winter."
ASKED = "When does the library open?"

PROMPTS = {
    "langchain": "Use the following pieces of context to answer the question at the end. If you don't know the answer, "
    f"just say that you don't know, don't try to make up an answer.\n\n{FACTS}\n\nQuestion: {ASKED}\nHelpful Answer:",
    "langchain hub": "You are an assistant for question-answering tasks. Use the following pieces of retrieved context "
    "to answer the question. If you don't know the answer, just say that you don't know. Use three sentences maximum "
    f"and keep the answer concise.\nQuestion: {ASKED} \nContext: {FACTS} \nAnswer:",
    "llamaindex": f"Context information is below.\n---------------------\n{FACTS}\n---------------------\nGiven the "
    f"context information and not prior knowledge, answer the query.\nQuery: {ASKED}\nAnswer: ",
    "haystack": f"Given the following information, answer the question.\nContext:\n    {FACTS}\nQuestion: {ASKED}\n"
    "Answer:",
    "tags": f"Answer based only on this:\n<context>\n{FACTS}\n</context>\n\n{ASKED}",
    "quotes": f'{ASKED}\n\n"""{FACTS}"""',
    "bold labels": f"**Context:** {FACTS}\n\n**Question:** {ASKED}",
}


@pytest.mark.parametrize("kind", PROMPTS)
def test_question_and_text_are_found_in_the_prompts_of_frameworks(kind: str) -> None:
    assert prompt(PROMPTS[kind]) == (ASKED, [FACTS])


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_long_text_beside_a_question_is_given(place: str) -> None:
    text = "The library opens at nine on weekdays. It closes at six. On Saturdays it is open from ten to two. " * 2
    said = f"{ASKED}\n\n{text}" if place == "before" else f"{text}\n\n{ASKED}"
    assert prompt(said) == (ASKED, [text.strip()])


@pytest.mark.parametrize(
    "said",
    ["How do I sow lettuce?", "I lost my key.\nWhat do I do now?", "word " * 300, "Look at this:\n```sh\nls\n```", ""],
)
def test_what_has_no_text_beside_it_is_all_question(said: str) -> None:
    assert prompt(said) == (said.strip(), [])


def test_sentences_that_tell_a_model_how_to_answer_are_no_facts() -> None:
    system = (
        "You are a support agent of Acme. If you don't know the answer, say so.\n\n"
        "The warranty of every bicycle is two years. Send questions to the desk in Potsdam, please."
    )
    assert told(system) == [
        "The warranty of every bicycle is two years. Send questions to the desk in Potsdam, please."
    ]
    assert told("You are a gardener.") == []
    marked = "Use the following context to answer the user's question.\n----------------\nRoses are pruned in winter."
    assert told(marked) == ["Roses are pruned in winter."]


@pytest.mark.parametrize(
    ("before", "said", "meant"),
    [
        ("What does the Falcon X2 weigh?", "and its price?", "Falcon X2's price?"),
        ("What does the Falcon X2 weigh?", "How much does it cost?", "How much does Falcon X2 cost?"),
        ("How much is the red bike?", "what about the blue one?", "How much is the red bike? what about the blue one?"),
        ("Who leads the library?", "And when was she born?", "when was she born? leads the library"),
        ("Who leads the library?", "Why?", "Who leads the library? Why?"),
        ("Where is the museum in Berlin?", "When is it open?", "When is it open? museum in Berlin"),
    ],
)  # fmt: skip
def test_a_follow_up_brings_along_what_it_is_about(before: str, said: str, meant: str) -> None:
    assert follows(said)
    assert joined(said, before) == meant
    assert joined(said, "") == said


@pytest.mark.parametrize(
    "said",
    [
        "When are roses pruned?", "How many books may members borrow?", "Does the library lend its books?",
        "What is the tool that runs the tests?", "Wann werden Rosen geschnitten?", "图书馆几点开门？", "",
    ],
)  # fmt: skip
def test_what_can_be_understood_alone_is_left_alone(said: str) -> None:
    assert not follows(said)
    assert joined(said, "What does the Falcon X2 weigh?") == said


def test_follow_ups_go_on_from_one_to_the_next() -> None:
    said = ["What does the Falcon X2 weigh?", "and its price?", "How far does it go?"]
    messages = [message for text in said for message in (Message("user", text), Message("assistant", "..."))]
    assert asked_last(messages) == "How far does Falcon X2 go?"
    assert asked_last([Message("system", "Be kind.")]) == ""
