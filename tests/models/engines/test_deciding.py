"""Which sentence is quoted: span and nearness in one number, given by hand."""

import numpy as np
import pytest

from server.models.engines.reader.deciding import FEATURES, NOWHERE, Place, features, scored, sureness
from server.models.engines.reader.spans import Span

PLACES = [Place(0, 0, 10), Place(0, 11, 30), Place(1, 0, 20)]
WEIGHTS = dict(zip(FEATURES, (-2.0, 6.0, 3.0, 0.0), strict=True))


def test_a_sentence_has_the_score_of_the_best_span_that_begins_in_it() -> None:
    spans = [Span(1, 5, 9, 4.0), Span(0, 8, 14, 2.0), Span(1, 12, 14, 1.0)]
    scores, best = scored(PLACES, spans)
    assert scores.tolist() == [2.0, NOWHERE, 4.0]
    assert best == [spans[1], None, spans[0]]


def test_scores_are_held_within_bounds() -> None:
    scores, _ = scored(PLACES[:2], [Span(0, 0, 2, 1e6), Span(0, 12, 14, -1e6)])
    assert scores.tolist() == [-NOWHERE, NOWHERE]


def test_surer_with_a_better_span_and_with_more_nearness() -> None:
    told = sureness(features(np.array([-5.0, 5.0, 5.0]), np.array([0.4, 0.4, 0.8])), WEIGHTS)
    assert told[0] < told[1] < told[2]
    assert told[1] == pytest.approx(1 / (1 + np.exp(2 - 3 - 1.2)))
    assert ((told > 0) & (told < 1)).all()
