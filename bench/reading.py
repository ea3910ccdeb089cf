"""The reading set: passages, questions over them, and the words that answer each."""

from pathlib import Path

import msgspec

from bench.table import CannotRun

_DEFAULT = Path(__file__).parents[2] / "shared" / "data" / "reading"


class Answer(msgspec.Struct, frozen=True):
    text: str


class Question(msgspec.Struct, frozen=True):
    """`answers` is empty where the passage holds none."""

    question: str
    answers: list[Answer]


class Passage(msgspec.Struct, frozen=True):
    context: str
    questions: list[Question]


def passages(folder: str | None) -> list[Passage]:
    """The dev part, from `folder` or where it lies beside the clone. Raises CannotRun where there is none."""
    file = (_DEFAULT if folder is None else Path(folder)) / "dev.jsonl"
    if not file.is_file():
        raise CannotRun(f"No data, nothing measured: {file} does not exist. Name the reading set's folder with --data.")
    return msgspec.json.Decoder(Passage).decode_lines(file.read_bytes())
