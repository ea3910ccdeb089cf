"""A question on its way through the encoder and the span reader, in parts that fit a step. Workers only."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Passage
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.reader.deciding import Calibration, Place, features, scored, sureness
from server.models.engines.reader.nearness import PASSAGE, nearness, shares
from server.models.engines.reader.sentences import Unit, split
from server.models.engines.reader.spans import Numbers, Span, SpanReader, Window, ranked

STEP_TOKENS = 1024
MOST_TOKENS = 800
"""Passages are read nearest first up to about here; 1 question in 200 has its answer only in those after it."""


class Kept:
    """The vectors of the sentences that were read last, by their text: good passages are found again and again."""

    def __init__(self, most: int = 8192) -> None:
        self._most = most
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    def get(self, text: str) -> NDArray[np.float32] | None:
        found = self._vectors.get(text)
        if found is not None:
            self._vectors.move_to_end(text)
        return found

    def put(self, text: str, vector: NDArray[np.float32]) -> None:
        self._vectors[text] = vector.copy()
        if len(self._vectors) > self._most:
            self._vectors.popitem(last=False)


@dataclass
class Reading:
    """`todo` holds the rows without a vector and `unread` the windows without logits, both shortest first.

    Row 0 is the question, row n + 1 unit n.
    """

    question: str
    passages: list[Passage]
    units: list[tuple[int, Unit]]
    vectors: NDArray[np.float32]
    todo: list[tuple[int, list[int]]]
    windows: list[Window]
    unread: list[int]
    kept: Kept
    logits: dict[int, Numbers] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        question: str,
        ids: list[int],
        passages: Sequence[Passage],
        encoder: Encoder,
        reader: SpanReader | None,
        kept: Kept,
    ) -> "Reading":
        """`ids` are those of the question; what of the passages is too much to be read is left out."""
        units = [(at, unit) for at, each in enumerate(passages) for unit in split(each.text) if unit.quotable]
        rows = encoder.ids([passages[at].text[unit.start : unit.end] for at, unit in units])
        read = _affordable(len(passages), [(at, len(row)) for (at, _), row in zip(units, rows, strict=True)])
        units = [(at, unit) for at, unit in units if at < read]
        # A unit longer than the window (a long table, say) is near by its beginning; it is still read and quoted whole.
        vectors = np.zeros((1 + len(units), encoder.shape.hidden), np.float32)
        todo = [(0, ids[: encoder.window])]
        for place, ((at, unit), row) in enumerate(zip(units, rows, strict=False), 1):
            known = kept.get(passages[at].text[unit.start : unit.end])
            if known is None:
                todo.append((place, row[: encoder.window]))
            else:
                vectors[place] = known
        windows = reader.windows(question, [each.text for each in passages[:read]]) if reader and units else []
        return cls(
            question=question,
            passages=list(passages[:read]),
            units=units,
            vectors=vectors,
            todo=sorted(todo, key=lambda row: len(row[1])),
            windows=windows,
            unread=sorted(range(len(windows)), key=lambda place: len(windows[place].ids)),
            kept=kept,
        )

    @property
    def done(self) -> bool:
        return not (self.todo or self.unread)

    def step(self, encoder: Encoder, reader: SpanReader | None) -> None:
        """Encodes or reads about STEP_TOKENS tokens."""
        if self.todo:
            count = _fitting([len(row) for _, row in self.todo])
            taken, self.todo = self.todo[:count], self.todo[count:]
            for (place, _), vector in zip(taken, encoder.encode([row for _, row in taken]), strict=True):
                self.vectors[place] = vector
                if place:
                    self.kept.put(self.text(place - 1), vector)
        elif reader is not None and self.unread:
            count = _fitting([len(self.windows[place].ids) for place in self.unread])
            places, self.unread = self.unread[:count], self.unread[count:]
            self.logits.update(zip(places, reader.logits([self.windows[place] for place in places]), strict=True))

    def text(self, place: int) -> str:
        at, unit = self.units[place]
        return self.passages[at].text[unit.start : unit.end]

    def together(self, first: int, second: int) -> bool:
        """Whether unit `second` directly follows unit `first`: one passage, and only white space between."""
        if not 0 <= first < second < len(self.units):
            return False
        (at, one), (other, two) = self.units[first], self.units[second]
        return at == other and not self.passages[at].text[one.end : two.start].strip()

    def nearness(self, *, alone: bool = False) -> NDArray[np.float64]:
        """How near each unit is to the question, 0 to 1.

        `alone` counts how near its passage was found to be only beside the nearest: what a search's scores mean
        differs from one to the next, and text in a prompt has none.
        """
        texts = [self.text(place) for place in range(len(self.units))]
        before = [place - 1 if self.together(place - 1, place) else None for place in range(len(self.units))]
        scores = [self.passages[at].score for at, _ in self.units]
        shared = shares(self.question, texts, before)
        if alone:
            beside = [score - max(scores) for score in scores]
            return nearness(self.vectors[0], self.vectors[1:], shared, beside) / (1 - PASSAGE)
        return nearness(self.vectors[0], self.vectors[1:], shared, scores)

    def spans(self, most: int) -> list[Span]:
        """The best spans, at most `most` of each passage."""
        texts = [passage.text for passage in self.passages]
        return ranked(texts, self.windows, [self.logits[place] for place in range(len(self.windows))], most)

    def sureness(self, calibration: Calibration) -> tuple[NDArray[np.float64], list[Span | None]]:
        """How surely each unit holds the answer, 0 to 1, and the best span that begins in each."""
        found, best = self.features()
        return sureness(found, calibration.weights), best

    def features(self) -> tuple[NDArray[np.float64], list[Span | None]]:
        """What `sureness` weighs, a row a unit."""
        places = [Place(at, unit.start, unit.end) for at, unit in self.units]
        scores, best = scored(places, self.spans(len(places)))
        return features(scores, self.nearness(alone=True)), best


def _fitting(lengths: Sequence[int]) -> int:
    """How many rows of these lengths, shortest first, are one padded batch of a step; at least one."""
    count = 1
    while count < len(lengths) and (count + 1) * lengths[count] <= STEP_TOKENS:
        count += 1
    return count


def _affordable(passages: int, tokens: Sequence[tuple[int, int]]) -> int:
    """How many of the passages are read, given (passage, tokens) of each unit; the first always is."""
    total = 0
    for at, count in tokens:
        total += count
        if total > MOST_TOKENS and at > 0:
            return at
    return passages
