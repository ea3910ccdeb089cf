"""`hearth eval`: how well a reader of the recipe answers the questions of a file, in the figures of its model card.

F1 and exact match are SQuAD's (arXiv 1606.05250), after its normalisation, with the right passage given and an answer
forced. What is answered and refused is measured on whole documents: the passages of a title are a document's.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.progress import track

from config import Recipe
from config.model import ReaderModel
from server.models.engine import Citation, Delta, Generate, Message, Passage
from server.models.engines.reader import questions

if TYPE_CHECKING:
    from server.models.engines.reader.engine import ReaderEngine

NEAREST = 3
"""How many passages of a document are read for a question, nearest first."""
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Asked:
    """A question, its answers, and the passages that are read for it."""

    question: str
    answers: tuple[str, ...]
    passages: list[Passage]


@dataclass(frozen=True)
class Reply:
    quotes: list[str]
    seconds: float

    def holds(self, answers: Iterable[str]) -> bool:
        return any(answer.strip() in quote for answer in answers for quote in self.quotes)


# ---- figures --------------------------------------------------------------------------------------------------------


def normalised(text: str) -> str:
    """In small letters, without punctuation and articles, single spaces between words."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact(told: str, answers: Sequence[str]) -> float:
    """1 where `told` is one of the answers; without any, where nothing was told."""
    return max((float(normalised(told) == normalised(answer)) for answer in answers), default=float(not told))


def f1(told: str, answers: Sequence[str]) -> float:
    """The best over `answers`; without any, 1 for telling nothing and 0 for anything else."""
    return max((_f1(told, answer) for answer in answers), default=float(not told))


def _f1(told: str, answer: str) -> float:
    one, other = normalised(told).split(), normalised(answer).split()
    if not one or not other:
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


# ---- the command ----------------------------------------------------------------------------------------------------


def evaluate(recipe: Recipe, model: str, data: Path, most: int | None, out: Console, err: Console) -> int:
    """Prints the figures; returns the exit code, 1 where they cannot be had."""
    spec = recipe.models.get(model)
    if not isinstance(spec, ReaderModel):
        readers = ", ".join(name for name, each in recipe.models.items() if isinstance(each, ReaderModel)) or "none"
        err.print(f'"{model}" is no model of engine reader; those of the recipe: {readers}', markup=False)
        return 1
    try:
        lines = questions.read(data)
        if not any(question.answers for line in lines for question in line.questions):
            raise ValueError(f"{data}: no question in it has an answer: there is nothing to measure")
        for name, value in measured(_loaded(spec, recipe.server.data), lines, most, out):
            out.print(f"{name} {value}", markup=False)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        err.print(f"{data}: {error}" if isinstance(error, msgspec.MsgspecError) else str(error), markup=False)
        return 1
    return 0


def _loaded(spec: ReaderModel, data: Path) -> "ReaderEngine":
    from server.models.engines.reader.engine import ReaderEngine
    from server.models.hub import Access, located

    files = located(spec.source, data, download=spec.download, progress=lambda _: None, access=Access.of({}))
    engine = ReaderEngine(spec, files, data / "cache")
    engine.load(lambda _: None)
    return engine


def measured(
    engine: "ReaderEngine", lines: Sequence[questions.Passage], most: int | None, out: Console
) -> Iterator[tuple[str, str]]:
    """The figures, each as soon as it is known, over the first `most` answerable questions where that is said.

    At least one question of `lines` must have an answer.
    """
    answerable = [
        (question.question, tuple(answer.text for answer in question.answers), line)
        for line in lines
        for question in line.questions
        if question.answers
    ][:most]
    yield "questions", str(len(answerable))
    if engine.spans is not None:
        told = [_span(engine, asked, line.context) for asked, _, line in track(answerable, "reading", console=out)]
        pairs = [(text, answers) for text, (_, answers, _) in zip(told, answerable, strict=True)]
        yield "F1", _percent(f1(text, answers) for text, answers in pairs)
        yield "EM", _percent(exact(text, answers) for text, answers in pairs)
    documents = Documents(engine, lines)
    asked = [Asked(question, answers, documents.near(question, line)) for question, answers, line in answerable]
    replies = [_reply(engine, each) for each in track(asked, "asking", console=out)]
    yield "answered", _percent(bool(reply.quotes) for reply in replies)
    yield "quote holds the answer", _percent(r.holds(a.answers) for r, a in zip(replies, asked, strict=True))
    yield "median ms a question", f"{1000 * median(reply.seconds for reply in replies):.0f}"
    others = [Asked(question, (), documents.others(question, line)) for question, _, line in answerable]
    others = [each for each in others if each.passages]
    if others:
        refusals = [_reply(engine, each) for each in track(others, "asking other passages", console=out)]
        yield "refused", f"{_percent(not reply.quotes for reply in refusals)} of {len(others)} asked of other passages"


def _percent(values: Iterable[float]) -> str:
    told = list(values)
    return f"{100 * sum(told) / len(told):.1f}"


def _span(engine: "ReaderEngine", question: str, text: str) -> str:
    assert engine.spans is not None
    found = engine.spans.read(question, [text], 1)
    return text[found[0].start : found[0].end] if found else ""


def _reply(engine: "ReaderEngine", asked: Asked) -> Reply:
    started = perf_counter()
    engine.submit(0, Generate([Message("user", asked.question)], asked.passages))
    cited: list[Citation] = []
    while engine.busy:
        for _, event in engine.step():
            if isinstance(event, Delta):
                cited += event.citations
    quotes = [asked.passages[each.passage].text[each.quote_start : each.quote_end] for each in cited]
    return Reply(quotes, perf_counter() - started)


class Documents:
    """The passages of each document with their vectors, to find those near a question as a search would."""

    def __init__(self, engine: "ReaderEngine", lines: Sequence[questions.Passage]) -> None:
        self._engine = engine
        self._lines = lines
        self._vectors = engine.vectors([line.context for line in lines])
        self._of: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, line in enumerate(lines):
            self._of[line.source, line.title or str(place)].append(place)
        self._places = {id(line): place for place, line in enumerate(lines)}

    def near(self, question: str, line: questions.Passage) -> list[Passage]:
        """The nearest passages of the document of `line`, which itself is always among them."""
        return self._nearest(question, line, keep=True)

    def others(self, question: str, line: questions.Passage) -> list[Passage]:
        """The nearest passages of the document without `line`; empty where it is alone."""
        return self._nearest(question, line, keep=False)

    def _nearest(self, question: str, line: questions.Passage, *, keep: bool) -> list[Passage]:
        own = self._places[id(line)]
        pool = [place for place in self._of[line.source, line.title or str(own)] if place != own]
        near = self._engine.vectors([question])[0] @ self._vectors[[own, *pool]].T
        scores = dict(zip([own, *pool], map(float, near), strict=True))
        nearest = sorted(pool, key=lambda place: -scores[place])
        taken = sorted([own, *nearest[: NEAREST - 1]], key=lambda place: -scores[place]) if keep else nearest[:NEAREST]
        return [Passage(self._lines[at].context, self._lines[at].title, max(0.0, min(1.0, scores[at]))) for at in taken]
