"""How the scores of two legs become one, and how raw scores become 0 to 1. Pure; knows no store."""

from collections.abc import Mapping, Sequence

_HALF = 8.0
"""The BM25 score that becomes 0.5: about what two rare words in common give."""


def weighted_sum(legs: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    """Convex combination of scores (Bruch, Gai and Ingber 2023): 0 to 1, where 1 is first in every leg. Best first.

    A leg is scores by id and its weight. Each is brought to its own best, so that scales do not matter, and how far
    apart two scores are still does: a leg that cannot tell the candidates apart does not drown one that can, which
    fusion by rank lets happen. An id a leg lacks has 0 there. Ties are broken by id.
    """
    total = sum(weight for _, weight in legs)
    fused: dict[str, float] = {}
    for scores, weight in legs:
        best = max(scores.values(), default=0.0)
        for key, score in scores.items():
            share = max(0.0, score) / best if best > 0 else 0.0
            fused[key] = min(1.0, fused.get(key, 0.0) + share * weight / total)
    return dict(sorted(fused.items(), key=lambda item: (-item[1], item[0])))


def of_cosine(cosine: float) -> float:
    """0 to 1: what points away from the query is no nearer than what has nothing to do with it."""
    return min(1.0, max(0.0, cosine))


def of_bm25(score: float) -> float:
    """0 to 1: BM25 has no upper bound, so it saturates."""
    return max(0.0, score) / (max(0.0, score) + _HALF)
