"""How much is quoted around the sentence that answers, and the words of the answer. No model in here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Citation, ToolCall
from server.models.engines.reader.reading import Reading
from server.models.engines.reader.sentences import is_led_to
from server.models.engines.reader.spans import Span

LONGEST_QUOTE = 400
_NEARLY_AS_NEAR = 0.06
"""A neighbour that is this little less near than the best sentence is quoted with it."""
_LEAST_WORDS = 4
"""A shorter unit ("Yes.", a bare title) says nothing by itself, and is quoted with what follows it."""
_word = re.compile(r"\s*\S+|\s+")


@dataclass
class Telling:
    """An answer on its way out, word by word."""

    words: list[str]
    limit: int | None
    citations: list[Citation] = field(default_factory=list)
    sent: int = 0
    said: int = 0
    call: ToolCall | None = None
    """What is called instead of being said; its words are counted, and not sent as text."""
    refusal: bool = False

    @classmethod
    def of(cls, text: str, limit: int | None) -> "Telling":
        return cls(_word.findall(text), limit)

    def next(self) -> tuple[str, list[Citation]]:
        """The next word, and the citations whose text it completes."""
        word = self.words[self.sent]
        before, self.said = self.said, self.said + len(word)
        self.sent += 1
        return word, [citation for citation in self.citations if before < citation.end <= self.said]


class Quote(NamedTuple):
    """Characters `start`:`end` of passage number `passage`, and the words in it that answer."""

    passage: int
    start: int
    end: int
    span: Span | None


def quoting(reading: Reading, quotes: Sequence[Quote], given: int, limit: int | None) -> Telling:
    """`“quote” — source`, a line a quote, with each one's place in answer and passage, and the span's where it stands
    in the quote.

    The first `given` passages are not of the request and are not cited.
    """
    text = ""
    citations = []
    for at, start, end, span in quotes:
        passage = reading.passages[at]
        quote = passage.text[start:end]
        text += "\n" if text else ""
        begin = len(text) + 1
        text += f"“{quote}”" + (f" — {passage.source}" if passage.source else "")
        inside = span is not None and start <= span.start and span.end <= end
        marked = (span.start, span.end) if span is not None and inside else (None, None)
        if at >= given:
            citations.append(Citation(at - given, begin, begin + len(quote), start, end, *marked))
    telling = Telling.of(text, limit)
    telling.citations = citations
    return telling


def widened(reading: Reading, near: NDArray[np.float64], best: int, span: Span | None) -> tuple[int, int]:
    """The first and the last unit to quote: the best one, with a neighbour where that serves the question.

    A lead-in ("Do this:") takes all that fits of what it leads to, and an item or code comes with its lead-in; a unit
    of a few words takes the next one; one in which no words answer takes its better neighbour where that is nearly as
    near.
    """
    text = reading.text(best)
    first = _lead_in(reading, best)
    if first is not None and (last := _following(reading, first, len(reading.units))) >= best:
        return first, last
    if len(text.split()) < _LEAST_WORDS:
        return best, _following(reading, best, 1)
    if span is not None and span.score > 0:
        return best, best
    sides = ((best - 1, best), (best, best + 1))
    beside = [(near[first + last - best], first, last) for first, last in sides if _fits(reading, first, last)]
    nearest = max(beside, default=(-1.0, best, best))
    return nearest[1:] if nearest[0] >= near[best] - _NEARLY_AS_NEAR else (best, best)


def _lead_in(reading: Reading, best: int) -> int | None:
    """The unit that leads to `best`, or is `best` itself; None where there is none."""
    place = best
    while not reading.text(place).endswith(":"):
        if not (is_led_to(reading.text(place)) and reading.together(place - 1, place)):
            return None
        place -= 1
    return place


def _following(reading: Reading, best: int, most: int) -> int:
    last = best
    while last - best < most and reading.together(last, last + 1) and _fits(reading, best, last + 1):
        last += 1
    while last > best and reading.text(last).endswith(":"):
        last -= 1  # what it leads to did not fit
    return last


def _fits(reading: Reading, first: int, last: int) -> bool:
    """Whether the units from `first` to `last` can be one quote; those between are known to belong together."""
    if not (reading.together(first, first + 1) and reading.together(last - 1, last)):
        return False
    return reading.units[last][1].end - reading.units[first][1].start <= LONGEST_QUOTE
