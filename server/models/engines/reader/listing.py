"""Whether a question asks for several things, and which sentences then answer it. No model in here."""

import re
from collections.abc import Sequence

from server.models.engines.reader.nearness import words
from server.models.engines.reader.reading import Reading
from server.models.engines.reader.spans import Span

MOST = 5
"""Sentences that are quoted at most."""

_LISTS = re.compile(
    r"^\W*(?:(?:please|can you|could you|and)\s+)*(?:list\b|enumerate\b|name\s+(?:all|the|some|every|\w+\s+\w+s\b)|"
    r"(?:give|show|tell)\s+me\s+(?:all|a list|the list|every)|what all\b|who all\b|what are (?:all |the \w+ ?\w*s\b)|"
    r"who are the\b|which of\b)|\ball (?:the|of the)\s+\w+s\b",
    re.IGNORECASE,
)
_PLURAL = re.compile(
    r"\b(?:which|what)\s+(?:(?:other|kinds? of|types? of|sorts? of|different|\w+)\s+){0,2}?(?P<noun>[a-z]+s)\b(?!['’])",
    re.IGNORECASE,
)
_SINGULAR = re.compile(r"(?:ss|us|is|ous|ys|news|series|always|does|was|has|hours|times?)$", re.IGNORECASE)


def asks_for_several(question: str) -> bool:
    """Whether it says "list", "name all", or asks "which" or "what" with a noun in the plural."""
    if _LISTS.search(question):
        return True
    match = _PLURAL.search(question)
    return match is not None and not _SINGULAR.search(match["noun"])


def several(reading: Reading, sure: Sequence[float], spans: Sequence[Span | None], threshold: float) -> list[int]:
    """The units that answer, surest first: one above the threshold, further ones above half of it in which words
    answer; none that says what another says."""
    order = sorted(range(len(sure)), key=lambda place: -sure[place])
    chosen: list[int] = []
    said: set[tuple[str, ...]] = set()
    for place in order:
        span = spans[place]
        if sure[place] < (threshold / 2 if chosen else threshold) or len(chosen) == MOST:
            break
        if chosen and (sure[place] < threshold if span is None else span.score <= 0):
            continue  # the sentence is near, and says none of what is asked for
        unit = tuple(words(reading.text(place)))
        answer = () if span is None else tuple(words(reading.passages[span.passage].text[span.start : span.end]))
        if unit in said or (answer and answer in said):
            continue
        said |= {unit, answer}
        chosen.append(place)
    return chosen
