"""Questions whose document is known, as they are and in languages that the model or the words do not know."""

import codecs
import re
import sys
from collections.abc import Callable
from hashlib import blake2b

from bench.reading import passages
from bench.retrieval.yardstick import Yardstick
from bench.side import ROOT
from bench.table import CannotRun

_HANDBOOK = ROOT / "recipes" / "handbook"
_SECTION = re.compile(r"^## (?P<question>.+\?)\n+(?P<answer>(?:(?!^## ).*\n?)+)", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z]+")
_STEM = 4


def yardsticks(data: str | None, most: int) -> list[Yardstick]:
    """The handbook, and the reading set from `data` or beside the clone: as they are, and made foreign in three ways.

    Raises CannotRun where `data` names a folder without it.
    """
    found = [handbook()]
    try:
        found.append(_reading(data))
    except CannotRun as told:
        if data is not None:
            raise
        print(f"{told} The handbook serves alone.", file=sys.stderr)
    plain = [each.evenly(most) for each in found]
    return [yardstick for each in plain for yardstick in (each, *foreign(each))]


def handbook() -> Yardstick:
    """The handbook's sections without their headings, and the headings, which are questions."""
    sections = [
        (match["question"], match["answer"].strip())
        for file in sorted(_HANDBOOK.glob("*.md"))
        for match in _SECTION.finditer(file.read_text(encoding="utf-8"))
    ]
    texts = {str(n): answer for n, (_, answer) in enumerate(sections)}
    return Yardstick("handbook", texts, [(question, str(n)) for n, (question, _) in enumerate(sections)])


def foreign(plain: Yardstick) -> list[Yardstick]:
    """What stands in for other languages: words with other letters, which count alike and mean nothing to a model."""
    return [
        _mapped(plain, "no word is the model's", _another),
        _mapped(plain, "half the words are the model's", _sometimes),
        Yardstick(
            f"{plain.name}, questions in another language",
            plain.texts,
            [(_in(_another, question), document) for question, document in plain.questions],
            {_in(_another, question): question for question, _ in plain.questions},
        ),
    ]


def _reading(data: str | None) -> Yardstick:
    found = passages(data)
    asked = [(each, str(n)) for n, passage in enumerate(found) for each in passage.questions if each.answers]
    questions = [(each.question.strip(), document) for each, document in asked]
    return Yardstick("reading", {str(n): each.context for n, each in enumerate(found)}, questions)


def _mapped(plain: Yardstick, name: str, word: Callable[[str], str]) -> Yardstick:
    texts = {document: _in(word, text) for document, text in plain.texts.items()}
    questions = [(_in(word, question), document) for question, document in plain.questions]
    return Yardstick(f"{plain.name}, {name}", texts, questions)


def _in(word: Callable[[str], str], text: str) -> str:
    return _WORD.sub(lambda match: word(match[0]), text)


def _another(word: str) -> str:
    return codecs.encode(word, "rot13")


def _sometimes(word: str) -> str:
    """The same for all forms of a word."""
    return _another(word) if blake2b(word[:_STEM].lower().encode(), digest_size=1).digest()[0] % 2 else word
