"""Fits what the engine weighs to say how surely a sentence answers, and the threshold below which it refuses."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from server.evaluating import Documents
from server.models.engine import Passage
from server.models.engines.reader import questions
from server.models.engines.reader.deciding import FEATURES, Calibration, sureness
from server.models.engines.reader.engine import ReaderEngine

ANSWERED, REFUSED = 85.0, 80.0
"""What is wanted in percent; the threshold is where the smaller surplus over the two is largest."""
QUESTIONS = 400
"""Four numbers and a threshold are fitted: more questions would take minutes and change little."""
_RIDGE = 1e-3
_STEPS = 50
_SEED = 1

Numbers = NDArray[np.float64]


class _Case(NamedTuple):
    """A question with its passages: features of each sentence, and whether it holds the answer."""

    found: Numbers
    right: NDArray[np.bool_]


def fit(engine: ReaderEngine, lines: Sequence[questions.Passage]) -> tuple[Calibration, dict[str, float]]:
    """The calibration from about QUESTIONS of `lines`, and its figures in percent where it was fitted without them.

    For these the questions are halved: each half is judged by what was fitted to the other.
    """
    here, there = _cases(engine, _sample(lines))
    halves = [(here[at::2], there[at::2]) for at in (0, 1)]
    judged = [_figures(_fitted(*one), *other) for one, other in (halves, halves[::-1])]
    figures = {name: round(float(np.mean([each[name] for each in judged])), 1) for name in judged[0]}
    return _fitted(here, there), figures


def _sample(lines: Sequence[questions.Passage]) -> list[questions.Passage]:
    """Whole documents, drawn until they have QUESTIONS questions."""
    titles = sorted({(line.source, line.title) for line in lines})
    random.Random(_SEED).shuffle(titles)
    drawn: list[questions.Passage] = []
    for title in titles:
        if sum(len(line.questions) for line in drawn) >= QUESTIONS:
            break
        drawn += [line for line in lines if (line.source, line.title) == title]
    return drawn


def _cases(engine: ReaderEngine, lines: Sequence[questions.Passage]) -> tuple[list[_Case], list[_Case]]:
    """Every question with the nearest passages of its document, and with those that do not hold the answer."""
    documents = Documents(engine, lines)
    here: list[_Case] = []
    there: list[_Case] = []
    for line in lines:
        for question in line.questions:
            answers = tuple(answer.text for answer in question.answers)
            if answers:
                here.append(_case(engine, question.question, documents.near(question.question, line), line, answers))
                if others := documents.others(question.question, line):
                    there.append(_case(engine, question.question, others, line, ()))
    return here, there


def _case(
    engine: ReaderEngine, question: str, passages: Sequence[Passage], line: questions.Passage, answers: tuple[str, ...]
) -> _Case:
    reading = engine.read(question, passages)
    found, _ = reading.features()
    right = [
        reading.passages[at].text == line.context and any(answer in reading.text(place) for answer in answers)
        for place, (at, _) in enumerate(reading.units)
    ]
    return _Case(found, np.array(right, bool))


def _fitted(here: Sequence[_Case], there: Sequence[_Case]) -> Calibration:
    cases = [*here, *there]
    weights = _logistic(np.concatenate([case.found for case in cases]), np.concatenate([case.right for case in cases]))
    named = dict(zip(FEATURES, (round(float(each), 4) for each in weights), strict=True))
    sure = np.array([_best(case, named)[0] for case in here])
    unsure = np.array([_best(case, named)[0] for case in there])
    tried = np.unique(np.concatenate([sure, unsure]))
    surplus = [min(100 * np.mean(sure >= at) - ANSWERED, 100 * np.mean(unsure < at) - REFUSED) for at in tried]
    return Calibration(round(float(tried[int(np.argmax(surplus))]), 4), named)


def _best(case: _Case, weights: dict[str, float]) -> tuple[float, bool]:
    """How sure the engine is of the best sentence, and whether that one holds the answer."""
    if not len(case.found):
        return 0.0, False
    sure = sureness(case.found, weights)
    return float(sure.max()), bool(case.right[int(sure.argmax())])


def _figures(fitted: Calibration, here: Sequence[_Case], there: Sequence[_Case]) -> dict[str, float]:
    told = [_best(case, fitted.weights) for case in here]
    return {
        "answered": 100 * float(np.mean([sure >= fitted.threshold for sure, _ in told])),
        "right sentence": 100 * float(np.mean([right for _, right in told])),
        "refused": 100 * float(np.mean([_best(case, fitted.weights)[0] < fitted.threshold for case in there])),
    }


def _logistic(found: Numbers, right: NDArray[np.bool_]) -> Numbers:
    """Weights of a logistic regression by Newton's method, with a little ridge."""
    weights = np.zeros(found.shape[1])
    for _ in range(_STEPS):
        told = 1 / (1 + np.exp(-np.clip(found @ weights, -30, 30)))
        slope = found.T @ (right - told) / len(right) - _RIDGE * weights
        bend = (found * (told * (1 - told))[:, None]).T @ found / len(right) + _RIDGE * np.eye(found.shape[1])
        step = np.linalg.solve(bend, slope)
        weights += step
        if np.abs(step).max() < 1e-6:
            break
    return weights
