"""How two rankings become one, and how raw scores become 0 to 1. Pure; knows no store."""

from collections.abc import Mapping, Sequence

K = 20
"""Softens the lead of the first ranks (Cormack, Clarke and Büttcher 2009 used 60); 20 ranked better on our sets."""

_HALF = 8.0
"""The BM25 score that becomes 0.5: about what two rare words in common give."""


def reciprocal_rank(legs: Sequence[tuple[Sequence[str], float]], k: int = K) -> dict[str, float]:
    """Weighted reciprocal rank fusion: the sum over legs of weight / (k + rank), rank from 1. Best first.

    A leg is a ranking of ids and its weight. Ties are broken by id, so that equal input gives equal output.
    """
    fused: dict[str, float] = {}
    for ranking, weight in legs:
        for rank, key in enumerate(ranking, start=1):
            fused[key] = fused.get(key, 0.0) + weight / (k + rank)
    return dict(sorted(fused.items(), key=lambda item: (-item[1], item[0])))


def share_of_best(fused: Mapping[str, float], weights: Sequence[float], k: int = K) -> dict[str, float]:
    """Fused scores from 0 to 1, where 1 is first in every leg."""
    best = sum(weights) / (k + 1)
    return {key: min(1.0, score / best) for key, score in fused.items()}


def of_cosine(cosine: float) -> float:
    """0 to 1: what points away from the query is no nearer than what has nothing to do with it."""
    return min(1.0, max(0.0, cosine))


def of_bm25(score: float) -> float:
    """0 to 1: BM25 has no upper bound, so it saturates."""
    return max(0.0, score) / (max(0.0, score) + _HALF)
