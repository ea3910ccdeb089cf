"""Documents with vectors that have clusters, as those of texts do; the same ones in every run."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from server.knowledge.document import Chunk, Document
from server.knowledge.shape import Shape
from server.knowledge.store import Store
from server.knowledge.stored import Cut

DIMENSION = 384
BATCH = 2048
SHAPE = Shape({}, "bench", np.eye(DIMENSION, dtype=np.float32)[0])
_CLUSTERS, _SPREAD, _WORDS = 1000, 0.7, 60
_VOCABULARY = [f"word{n}" for n in range(5000)]


def vectors(count: int, seed: int) -> NDArray[np.float32]:
    """Float32 [count, DIMENSION] of unit length."""
    centres = np.random.default_rng(0).normal(size=(_CLUSTERS, DIMENSION)).astype(np.float32)
    chance = np.random.default_rng([1, seed])
    made = centres[chance.integers(0, _CLUSTERS, count)]
    made += _SPREAD * chance.normal(size=made.shape).astype(np.float32)
    found: NDArray[np.float32] = made / np.linalg.norm(made, axis=1, keepdims=True)
    return found


def cuts(first: int, count: int) -> list[Cut]:
    """Documents of one chunk each, numbered from `first`."""
    made = vectors(count, first)
    chance = np.random.default_rng([2, first])
    texts = [" ".join(_VOCABULARY[n] for n in line) for line in chance.integers(0, len(_VOCABULARY), (count, _WORDS))]
    return [
        Cut(
            Document(id=f"d{first + n}", uri=f"d{first + n}", filename=f"d{first + n}", text=text),
            [Chunk(text, 0, len(text), (), text, _WORDS)],
            made[n : n + 1],
        )
        for n, text in enumerate(texts)
    ]


def words(n: int) -> str:
    """Three words that documents have, other ones for each `n`."""
    return " ".join(_VOCABULARY[each] for each in np.random.default_rng([3, n]).integers(0, len(_VOCABULARY), 3))


def batches(rows: int) -> Iterator[list[Cut]]:
    for at in range(0, rows, BATCH):
        yield cuts(at, min(BATCH, rows - at))


async def filled(folder: Path, rows: int) -> Store:
    store = await Store.open(folder, SHAPE)
    for batch in batches(rows):
        await store.replace(batch)
    return store


async def typical_ms(ask: Callable[[int], Awaitable[object]], count: int = 200) -> float:
    """The median over `count` calls, each given its number."""
    times = []
    for n in range(count):
        started = perf_counter()
        await ask(n)
        times.append(perf_counter() - started)
    return median(times) * 1000


async def in_turn_ms(
    one: Callable[[int], Awaitable[object]], other: Callable[[int], Awaitable[object]], count: int = 200
) -> tuple[float, float]:
    """The median of each over `count` calls that take turns, so that other load on the machine meets both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for n in range(count):
        for ask, took in zip((one, other), times, strict=True):
            started = perf_counter()
            await ask(n)
            took.append(perf_counter() - started)
    return median(times[0]) * 1000, median(times[1]) * 1000


def bytes_on_disk(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
