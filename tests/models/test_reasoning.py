"""Reasoning is split off the answer however the text is cut, and only at its beginning."""

import pytest

from server.models.reasoning import ReasoningSplitter, opens_reasoning


def split(answer: str, size: int, *, open: bool = False) -> tuple[str, str]:  # noqa: A002
    splitter = ReasoningSplitter(open=open)
    parts = [splitter.feed(answer[at : at + size]) for at in range(0, len(answer), size)]
    parts.append(splitter.flush())
    return "".join(reasoning for reasoning, _ in parts), "".join(content for _, content in parts)


@pytest.mark.parametrize(
    ("answer", "opened", "reasoning", "content"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", False, "Hm.\n", "Yes."),
        ("\n<think>Hm.</think>Yes.", False, "Hm.", "Yes."),
        ("Hm.\n</think>\n\nYes.", True, "Hm.\n", "Yes."),
        ("<think>Hm.</think>Yes.", True, "Hm.", "Yes."),
        ("Yes, <think> is a tag.", False, "", "Yes, <think> is a tag."),
        ("  Yes.", False, "", "  Yes."),
        ("<think>never closed", False, "never closed", ""),
        ("never closed", True, "never closed", ""),
        ("<thi", False, "", "<thi"),
        ("<think></think>", False, "", ""),
        ("", False, "", ""),
    ],
)
def test_reasoning_and_content(answer: str, opened: bool, reasoning: str, content: str) -> None:
    for size in (1, 2, 3, 100):
        assert split(answer, size, open=opened) == (reasoning, content)


def test_a_prompt_that_ends_in_the_tag_opens_the_answer() -> None:
    assert opens_reasoning("<|im_start|>assistant\n<think>\n")
    assert not opens_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
