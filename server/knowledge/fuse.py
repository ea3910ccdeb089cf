"""How the scores of two legs become one, and how raw scores become 0 to 1. Pure; knows no store."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
K = TypeVar("K", str, int, str | int)
"""A chunk's id or address."""

_HALF = 8.0
"""The BM25 score that becomes 0.5: about what two rare words in common give."""
_CROWD = 30
"""The place whose score tells what many chunks have in common with the query, and so tells nothing."""
_IN_THE_CROWD = 0.02
"""What a score, or a cosine, counts below the crowd's: enough to keep the order."""
_A_WORD = 0.75
"""BM25 that each word of a query has to bring before its best chunk counts by a quarter."""
_HEALTHY = 2.0
"""Weight of the vector leg beside 1 for the text leg, where it finds as much."""
_FALL = 2
"""The power with which it loses weight as it finds less: what it says of a chunk it would not find is noise."""
_UNSURE = 0.03
"""What either might find by chance."""
_RECORDS = 0.3
"""What the vector leg is taken to find beside the text leg where neither finds more than chance: texts that say nothing
twice, as the rows of a table, are told apart by single words."""

# Han, kana and hangul are written without spaces: two of their signs are about a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{1,2}|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


@dataclass(frozen=True)
class Scale:
    """What the BM25 scores and the cosines of one query are measured by.

    Of BM25 `best` is the highest, `crowd` what chunks far down still have, `wanted` what a query of this length should
    bring. `near` is the cosine that chunks far down still have.
    """

    best: float
    crowd: float
    wanted: float
    near: float

    @classmethod
    def of(cls, query: str, scores: Collection[float], cosines: Collection[float]) -> "Scale":
        best = max(0.0, *scores) if scores else 0.0
        return cls(best, _crowd(scores), _A_WORD * len(words(query)), _crowd(cosines))

    def share(self, scores: Numbers) -> Numbers:
        """0 to 1: how far each chunk stands out of the crowd, less where even the best has little of the query."""
        whole = self.best + self.wanted
        if whole <= 0:
            return np.zeros_like(scores)
        above = (1 - _IN_THE_CROWD) * np.maximum(0.0, scores - self.crowd) + _IN_THE_CROWD * np.maximum(0.0, scores)
        return above * (self.best / whole**2)

    def nearness(self, cosines: Numbers) -> Numbers:
        """0 to 1: each cosine, or about the crowd's where it is less.

        A chunk that words found is not held back by what a model that does not know them says of it.
        """
        cosines = np.clip(cosines, 0.0, 1.0)
        return (1 - _IN_THE_CROWD) * np.maximum(cosines, self.near) + _IN_THE_CROWD * cosines

    def beside(self, other: "Scale") -> "Scale":
        """The same for scores of one query in two collections: the best of both is the best."""
        return Scale(max(self.best, other.best), self.crowd, self.wanted, max(self.near, other.near))


def _crowd(scores: Collection[float]) -> float:
    """Nothing where they are no crowd."""
    return max(0.0, sorted(scores, reverse=True)[_CROWD]) if len(scores) > _CROWD else 0.0


def words(text: str) -> list[str]:
    """About the words of `text`, in any script."""
    return _WORD.findall(text)


def spans(text: str) -> list[tuple[int, int]]:
    """Where they stand."""
    return [match.span() for match in _WORD.finditer(text)]


def weights_of(vector: float, text: float) -> tuple[float, float]:
    """Weights of the vector and the text leg, 1 together, from what each finds of known chunks beyond chance, 0 to 1.

    Only the vector leg can fall behind for a whole collection: a model may not know its language. Words that a
    query lacks cost the text leg its share of that query alone (`Scale`).
    """
    beside = min(1.0, (vector + _RECORDS * _UNSURE) / (text + _UNSURE))
    odds: float = _HEALTHY * beside**_FALL
    return odds / (1 + odds), 1 / (1 + odds)


def fused(
    cosines: Mapping[K, float], scores: Mapping[K, float], weights: tuple[float, float], scale: Scale
) -> dict[K, float]:
    """Convex combination of the cosine and the share of BM25 (Bruch, Gai and Ingber 2023), 0 to 1 by key, best first.

    Scores and not ranks are combined, so a leg that cannot tell the candidates apart does not drown one that can. A
    key that a leg lacks has 0 there; ties are broken by key.
    """
    whole = sum(weights)
    vector, text = (weight / whole for weight in weights)
    near = vector * scale.nearness(np.fromiter(cosines.values(), np.float64, len(cosines)))
    share = text * scale.share(np.fromiter(scores.values(), np.float64, len(scores)))
    found = dict(zip(cosines, near.tolist(), strict=True))
    for key, score in zip(scores, share.tolist(), strict=True):
        found[key] = min(1.0, found.get(key, 0.0) + score)
    return best_first(found)


def best_first(scores: Mapping[K, float]) -> dict[K, float]:
    """In this order; ties by key."""
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def of_cosine(cosine: float) -> float:
    """0 to 1: what points away from the query is no nearer than what has nothing to do with it."""
    return min(1.0, max(0.0, cosine))


def of_bm25(score: float) -> float:
    """0 to 1: BM25 has no upper bound, so it saturates."""
    return max(0.0, score) / (max(0.0, score) + _HALF)
