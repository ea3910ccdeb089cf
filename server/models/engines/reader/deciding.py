"""Which sentence answers, and how surely: the span reader's score and a sentence's nearness in one probability."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.models.engines.reader.spans import Span

Numbers = NDArray[np.float64]

NOWHERE = -10.0
"""The score of a sentence in which no span begins; scores are held between this and its opposite."""
FEATURES = ("always", "span", "near", "both")


class Calibration(msgspec.Struct, frozen=True):
    """What the training fitted on the dev part, from the metadata of the weights.

    `weights` are those of FEATURES; below `threshold` nothing is quoted.
    """

    threshold: float
    weights: dict[str, float]


class Place(NamedTuple):
    """Characters `start`:`end` of passage number `passage`."""

    passage: int
    start: int
    end: int


def scored(places: Sequence[Place], spans: Sequence[Span]) -> tuple[Numbers, list[Span | None]]:
    """For each place the score of the best span that begins in it, and that span; `spans` come best first."""
    scores = np.full(len(places), NOWHERE)
    best: list[Span | None] = [None] * len(places)
    for span in spans:
        for number, place in enumerate(places):
            if place.passage == span.passage and place.start <= span.start < place.end:
                if best[number] is None:
                    best[number], scores[number] = span, np.clip(span.score, NOWHERE, -NOWHERE)
                break
    return scores, best


def features(span: Numbers, near: Numbers) -> Numbers:
    """[places, len(FEATURES)] from the span scores and the nearness of each place."""
    return np.stack([np.ones_like(near), span / -NOWHERE, near, span / -NOWHERE * near], axis=1)


def sureness(found: Numbers, weights: Mapping[str, float]) -> Numbers:
    """The probability, above 0 and below 1, that each place holds the answer: logistic in its features."""
    odds = found @ np.array([weights[name] for name in FEATURES])
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))))
