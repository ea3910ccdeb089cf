"""What was found, put into the order of a model that reads query and chunk together. Knows models by one method."""

import time
from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import replace

from server.knowledge.document import Hit
from server.knowledge.report import Found


class Scored(Protocol):
    """`scores` are 0 to 1, higher is better, in the order of the documents; `tokens` were read for them."""

    @property
    def scores(self) -> list[float]: ...

    @property
    def tokens(self) -> int: ...


class Reranker(Protocol):
    """A gateway's model handle satisfies it. `rerank` raises a HearthError where it cannot score every document."""

    async def rerank(self, query: str, documents: Sequence[str]) -> Scored: ...


async def reranked(found: Found, query: str, model: Reranker, k: int) -> Found:
    """The `k` best of `found` by `model`'s scores, which become theirs and stand in `scores` too.

    Raises what the model raises: nothing is passed on in the order it had before.
    """
    if not found.hits:
        return found
    started = time.perf_counter()
    told = await model.rerank(query, [_read(hit) for hit in found.hits])
    hits = [_scored(hit, score) for hit, score in zip(found.hits, told.scores, strict=True)]
    hits.sort(key=lambda hit: (-hit.scores["rerank"], hit.id))
    spent = {"rerank": (time.perf_counter() - started) * 1000}
    return replace(found, hits=hits[:k], timings_ms=found.timings_ms | spent, rerank_tokens=told.tokens)


def _scored(hit: Hit, score: float) -> Hit:
    return replace(hit, score=min(1.0, max(0.0, score)), scores=hit.scores | {"rerank": score})


def _read(hit: Hit) -> str:
    """What the model reads of a chunk: with the headings above it, which say what it is about."""
    return f"{hit.heading}\n\n{hit.text}" if hit.heading else hit.text
