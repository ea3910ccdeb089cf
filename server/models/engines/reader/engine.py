"""The embedded default chat model: it quotes the nearest sentence of the passages, or says that none is near.

It generates nothing: every word of an answer is either quoted or one of the fixed phrases below. Workers only.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config.model import ReaderModel
from server.errors import ContextLengthExceeded, RequestError
from server.models.engine import (
    Admitted,
    Card,
    Citation,
    Delta,
    Detokenize,
    Event,
    Generate,
    Passage,
    Progress,
    Request,
    Spelled,
    Tokenize,
    Tokens,
)
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.reader import smalltalk
from server.models.engines.reader.nearness import nearness, shares
from server.models.engines.reader.sentences import Unit, split

THRESHOLD = 0.38
"""Answers 9 of 10 answerable questions of the reading set and refuses 17 of 20 that are asked of other pages."""

WHO_I_AM = (
    "I am Hearth's built-in reader. I answer questions by quoting the best sentence of the documents this server "
    "knows, with its source; I cannot chat, write or reason. Ask me something the documents say. To chat, declare a "
    "generative model under `models` in the recipe, on an engine that your Hearth has, and send its id as `model`."
)
NO_KNOWLEDGE = (
    "I can only quote documents, and no collection is attached to this model id. Ask an assistant of the recipe that "
    "has `knowledge`; its id stands in the list of models."
)
NOT_THERE = "I did not find that in these documents."
NOTHING_READ = "I did not find that: the collection holds no passage on it."

_STEP_TOKENS = 1024
_MOST_TOKENS = 800
"""Passages are read nearest first up to about here; 1 question in 200 has its answer only in those after it."""
_LONGEST_QUOTE = 400
_NEARLY_AS_NEAR = 0.06
"""A neighbour that is this little less near than the best sentence is quoted with it."""
_LEAST_WORDS = 4
"""A shorter unit ("Yes.", a bare title) says nothing by itself, and is quoted with what follows it."""
_word = re.compile(r"\s*\S+|\s+")


@dataclass
class _Reading:
    """A question whose sentences are being encoded; `todo` holds the rows without a vector, shortest first."""

    question: str
    passages: list[Passage]
    units: list[tuple[int, Unit]]
    todo: list[tuple[int, list[int]]]
    vectors: NDArray[np.float32]
    limit: int | None
    has_knowledge: bool


@dataclass
class _Telling:
    """An answer on its way out, word by word."""

    words: list[str]
    limit: int | None
    citations: list[Citation] = field(default_factory=list)
    sent: int = 0
    said: int = 0

    def next(self) -> tuple[str, list[Citation]]:
        """The next word, and the citations whose text it completes."""
        word = self.words[self.sent]
        before, self.said = self.said, self.said + len(word)
        self.sent += 1
        return word, [citation for citation in self.citations if before < citation.end <= self.said]


class ReaderEngine:
    """Encodes in steps of about 1000 tokens, then sends one word a request and step."""

    def __init__(self, spec: ReaderModel, files: Path, cache: Path) -> None:
        self._files = files
        self._spec = spec
        self._cache = cache
        self._threshold = THRESHOLD if spec.threshold is None else spec.threshold
        self._reading: dict[int, _Reading] = {}
        self._telling: dict[int, _Telling] = {}

    def load(self, progress: Progress) -> Card:
        progress("building the encoder")
        self._encoder = Encoder(self._files, self._cache, self._spec.precision, self._spec.threads)
        self._examples = self._encoder.encode(self._encoder.ids(smalltalk.EXAMPLES))
        return Card(
            task="chat",
            description="Quotes the nearest sentence of the attached knowledge with its source; generates nothing.",
            context=self._encoder.window,
            tokenizer=str(self._encoder.tokenizer_file),
            precision=self._encoder.precision,
            family=self._encoder.shape.family,
        )

    # ---- taking a question --------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Generate):
            raise RequestError("This model is for chat, not for embeddings.", param="model")
        question, ids = self._question(request)
        if len(ids) > self._encoder.window:
            raise ContextLengthExceeded.of(self._encoder.window, len(ids))
        reading = self._reading[key] = self._units(question, ids, request)
        return Admitted(self._counted(ids, reading))

    def _question(self, request: Generate) -> tuple[str, list[int]]:
        question = next((said.text for said in reversed(request.messages) if said.role == "user"), "").strip()
        if not question:
            raise RequestError("There is no user message with a question.", param="messages")
        return question, self._encoder.ids([question])[0]

    def _counted(self, ids: list[int], reading: _Reading) -> int:
        return len(ids) + sum(self._encoder.count(passage.text) for passage in reading.passages)

    def count(self, request: Generate) -> int:
        question, ids = self._question(request)
        return self._counted(ids, self._units(question, ids, request))

    def tokenize(self, request: Tokenize) -> Tokens:
        """The ids its encoder reads a question or a passage as."""
        return self._encoder.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._encoder.detokenize(request)

    def _units(self, question: str, ids: list[int], request: Generate) -> _Reading:
        passages = request.passages or []
        units = [(at, unit) for at, each in enumerate(passages) for unit in split(each.text) if unit.quotable]
        rows = self._encoder.ids([passages[at].text[unit.start : unit.end] for at, unit in units])
        read = _affordable(len(passages), [(at, len(row)) for (at, _), row in zip(units, rows, strict=True)])
        units = [(at, unit) for at, unit in units if at < read]
        # A unit longer than the window (a long table, say) is judged by its beginning; it is still quoted whole.
        todo = [row[: self._encoder.window] for row in (ids, *rows[: len(units)])]
        return _Reading(
            question=question,
            passages=passages[:read],
            units=units,
            todo=sorted(enumerate(todo), key=lambda row: len(row[1])),
            vectors=np.zeros((len(todo), self._encoder.shape.hidden), np.float32),
            limit=request.max_tokens,
            has_knowledge=request.passages is not None,
        )

    # ---- steps --------------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Event]]:
        if self._reading:
            key, reading = next(iter(self._reading.items()))
            self._encode_some(reading)
            if not reading.todo:
                del self._reading[key]
                self._telling[key] = self._answer(reading)
        events = [(key, self._say(telling)) for key, telling in self._telling.items()]
        for key, delta in events:
            if delta.finish_reason is not None:
                del self._telling[key]
        return list(events)

    def _encode_some(self, reading: _Reading) -> None:
        count = 1
        while count < len(reading.todo) and (count + 1) * len(reading.todo[count][1]) <= _STEP_TOKENS:
            count += 1
        taken, reading.todo = reading.todo[:count], reading.todo[count:]
        reading.vectors[[place for place, _ in taken]] = self._encoder.encode([row for _, row in taken])

    def _say(self, telling: _Telling) -> Delta:
        """The next word. Tokens are counted word by word, which is how they are sent."""
        tokens = self._encoder.count(telling.words[telling.sent])
        if telling.limit is not None and tokens > telling.limit:
            return Delta(finish_reason="length")
        if telling.limit is not None:
            telling.limit -= tokens
        word, citations = telling.next()
        return Delta(
            word, tokens, citations=citations, finish_reason="stop" if telling.sent == len(telling.words) else None
        )

    # ---- answering ----------------------------------------------------------------------------------------------

    def _answer(self, reading: _Reading) -> _Telling:
        if self._is_small_talk(reading):
            return _telling(WHO_I_AM, reading)
        if not reading.passages:
            return _telling(NOTHING_READ if reading.has_knowledge else NO_KNOWLEDGE, reading)
        best = self._best(reading)
        return _telling(_not_there(len(reading.passages)), reading) if best is None else _quoting(reading, *best)

    def _is_small_talk(self, reading: _Reading) -> bool:
        if len(reading.question.split()) > smalltalk.LONGEST:
            return False
        if smalltalk.asks_nothing(reading.question):
            return True
        return float((self._examples @ reading.vectors[0]).max()) >= smalltalk.NEAR

    def _best(self, reading: _Reading) -> tuple[int, int, int] | None:
        """The passage to quote and the quote's characters in it; None where nothing is near enough."""
        if not reading.units:
            return None
        near = self._nearness(reading)
        best = int(near.argmax())
        if near[best] < self._threshold:
            return None
        first, last = _widened(reading, near, best)
        at, unit = reading.units[first]
        return at, unit.start, reading.units[last][1].end

    def _nearness(self, reading: _Reading) -> NDArray[np.float64]:
        texts = [_text(reading, place) for place in range(len(reading.units))]
        before = [place - 1 if _together(reading, place - 1, place) else None for place in range(len(reading.units))]
        scores = [reading.passages[at].score for at, _ in reading.units]
        shared = shares(reading.question, texts, before)
        return nearness(reading.vectors[0], reading.vectors[1:], shared, scores)

    def cancel(self, key: int) -> None:
        self._reading.pop(key, None)
        self._telling.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self._reading or self._telling)

    def close(self) -> None:
        self._reading.clear()
        self._telling.clear()


def _affordable(passages: int, tokens: list[tuple[int, int]]) -> int:
    """How many of the passages are read, given (passage, tokens) of each unit; the first always is."""
    total = 0
    for at, count in tokens:
        total += count
        if total > _MOST_TOKENS and at > 0:
            return at
    return passages


def _telling(text: str, reading: _Reading) -> _Telling:
    return _Telling(_word.findall(text), reading.limit)


def _not_there(read: int) -> str:
    which = "The passage I read is not" if read == 1 else f"None of the {read} passages I read is"
    return f"{NOT_THERE} {which} near enough to the question."


def _quoting(reading: _Reading, at: int, start: int, end: int) -> _Telling:
    """`“quote” — source`, with the quote's place in answer and passage."""
    passage = reading.passages[at]
    quote = passage.text[start:end]
    telling = _telling(f"“{quote}” — {passage.source}", reading)
    telling.citations = [Citation(at, 1, 1 + len(quote), start, end)]
    return telling


def _widened(reading: _Reading, near: NDArray[np.float64], best: int) -> tuple[int, int]:
    """The first and the last unit to quote: the best one, with a neighbour where that serves the question.

    A lead-in ("Do this:") takes all that fits of what it leads to; a unit of a few words takes the next one; another
    takes its better neighbour where that is nearly as near.
    """
    text = _text(reading, best)
    if text.endswith(":"):
        return best, _following(reading, best, len(reading.units))
    if len(text.split()) < _LEAST_WORDS:
        return best, _following(reading, best, 1)
    spans = ((best - 1, best), (best, best + 1))
    beside = [(near[first + last - best], first, last) for first, last in spans if _fits(reading, first, last)]
    nearest = max(beside, default=(-1.0, best, best))
    return nearest[1:] if nearest[0] >= near[best] - _NEARLY_AS_NEAR else (best, best)


def _following(reading: _Reading, best: int, most: int) -> int:
    last = best
    while last - best < most and _together(reading, last, last + 1) and _fits(reading, best, last + 1):
        last += 1
    while last > best and _text(reading, last).endswith(":"):
        last -= 1  # what it leads to did not fit
    return last


def _fits(reading: _Reading, first: int, last: int) -> bool:
    """Whether the units from `first` to `last` can be one quote; those between are known to belong together."""
    if not (_together(reading, first, first + 1) and _together(reading, last - 1, last)):
        return False
    return reading.units[last][1].end - reading.units[first][1].start <= _LONGEST_QUOTE


def _together(reading: _Reading, first: int, second: int) -> bool:
    """Whether unit `second` directly follows unit `first`: one passage, and nothing but white space between."""
    if not 0 <= first < second < len(reading.units):
        return False
    (at, one), (other, two) = reading.units[first], reading.units[second]
    return at == other and not reading.passages[at].text[one.end : two.start].strip()


def _text(reading: _Reading, place: int) -> str:
    at, unit = reading.units[place]
    return reading.passages[at].text[unit.start : unit.end]
