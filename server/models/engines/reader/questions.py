"""The file of passages with questions that a reader is trained on and measured by: JSON Lines; knows no reader."""

from pathlib import Path

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """`start` is the place of its first character in the passage."""

    text: str
    start: int


class Question(msgspec.Struct, frozen=True):
    """`answers` is empty where the passage holds none."""

    question: str
    answers: list[Answer]


class Passage(msgspec.Struct, frozen=True):
    """One line: a passage of the document `title`, which is one of `source`, and questions on it."""

    context: str
    questions: list[Question]
    title: str = ""
    source: str = ""


def read(file: Path) -> list[Passage]:
    """Raises OSError, or msgspec's errors where a line is not of the form."""
    return msgspec.json.Decoder(Passage).decode_lines(file.read_bytes())
