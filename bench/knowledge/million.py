"""A table of a million chunks as a server makes one: written in batches with maintenance beside, then searched.

What is found is compared with the exact answer, which is put together while the rows are made: nothing here ever holds
all of them.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.knowledge.made import SHAPE, batches, bytes_on_disk, vectors
from bench.knowledge.measures import both_halves
from bench.table import Figure
from server.knowledge.maintenance import Maintenance
from server.knowledge.reading import Reading
from server.knowledge.store import Store

_QUESTIONS, _K, _ROUNDS = 100, 10, 3
_DEFAULT_HOT = 512 * 1024**2
_KEPT = timedelta(milliseconds=1)
_ANSWERS = "answers.json"


async def million(folder: Path, count: int, hot: int) -> list[Figure]:
    """`folder` is filled unless it is so already; `hot` is the memory that searches in memory are given."""
    kept = folder / _ANSWERS
    built = [] if kept.exists() else await _built(folder, count)
    answers: list[list[str]] = json.loads(kept.read_text(encoding="utf-8"))
    name = f"{count:,} chunks"
    started = perf_counter()
    store = await Store.open(folder, SHAPE)
    opened = perf_counter() - started
    started = perf_counter()
    await Reading.nearest(store, vectors(1, 1)[0], None, _K)
    first = perf_counter() - started
    refused = await store.warm() == 0 if count * vectors(1, 1).nbytes > _DEFAULT_HOT else None
    figures = [
        *built,
        Figure(f"{name}, opened again", opened * 1000, "ms", peer=f"first search {first * 1000:.0f} ms", digits=0),
        *await _searched(f"{name}, from disk", store, answers, lambda each: Reading.nearest(store, each, None, _K)),
        await _hybrid(f"{name}, hybrid from disk", store),
    ]
    await store.close()
    if refused is not None:
        figures.append(Figure(f"{name}, left to the disk with the default `hot`", float(refused), "", 1, "at least"))
    return figures + await _from_memory(name, folder, hot, answers)


async def _built(folder: Path, count: int) -> list[Figure]:
    questions = vectors(_QUESTIONS, -1 % 2**32)
    nearest = _Exact(questions)
    store = await Store.open(folder, SHAPE, hot=0)
    maintenance = Maintenance(store, "bench")
    maintenance.start()
    begun = _memory()
    writing = 0.0
    for batch in batches(count):
        await asyncio.to_thread(nearest.see, [cut.document.id for cut in batch], [cut.vectors[0] for cut in batch])
        started = perf_counter()
        await store.replace(batch)
        writing += perf_counter() - started
        maintenance.wake()
    most = _memory()
    started = perf_counter()
    await maintenance.close()
    await store.compact(_KEPT)
    ready = perf_counter() - started
    await store.close()
    in_all = _memory()
    (folder / _ANSWERS).write_text(json.dumps(nearest.ids), encoding="utf-8")
    name, disk = f"{count:,} chunks", bytes_on_disk(folder)
    faults = f"{maintenance.failures} faults of maintenance beside it"
    peer = f"{count / writing:,.0f} chunks/s, {faults}, and {ready:.0f} s until all is indexed"
    return [
        Figure(f"{name}, written", writing, "s", peer=peer, digits=0),
        Figure(f"{name}, disk", disk / 1e6, "MB", peer=f"{count * vectors(1, 1).nbytes / 1e6:,.0f} MB of vectors"),
        Figure(f"{name}, most memory while written", most / 1e6, "MB", peer=_grown(begun, in_all), digits=0),
    ]


async def _from_memory(name: str, folder: Path, hot: int, answers: list[list[str]]) -> list[Figure]:
    store = await Store.open(folder, SHAPE, hot=hot)
    started = perf_counter()
    rows = await store.warm()
    took = perf_counter() - started
    if not rows:
        await store.close()
        return []
    figures = await _searched(f"{name}, in memory", store, answers, lambda each: store.nearest(each, None, _K))
    figures.append(await _hybrid(f"{name}, hybrid from memory", store))
    taken = store._hot.snapshot.bytes / 1e6 if store._hot.snapshot else 0.0
    figures.append(Figure(f"{name}, brought into memory", took, "s", peer=f"{taken:,.0f} MB", digits=0))
    await store.close()
    return figures


async def _searched(
    name: str, store: Store, answers: list[list[str]], nearest: Callable[[NDArray[np.float32]], Awaitable[object]]
) -> list[Figure]:
    questions = vectors(_QUESTIONS, -1 % 2**32)
    found = 0
    for question, wanted in zip(questions, answers, strict=True):
        table = await nearest(question)
        found += len(set(wanted) & set(table["document_id"].to_pylist()))  # type: ignore[index]  # rows
    median, late = await _spread(lambda n: nearest(questions[n % _QUESTIONS]))
    return [
        Figure(f"{name}, p50", median, "ms", peer=f"p99 {late:.1f} ms", digits=2),
        Figure(f"{name}, recall", found / _QUESTIONS / _K, "", 0.99, "at least", digits=4),
    ]


async def _hybrid(name: str, store: Store) -> Figure:
    median, late = await _spread(both_halves(store, vectors(_QUESTIONS, -1 % 2**32)))
    return Figure(f"{name}, p50", median, "ms", peer=f"p99 {late:.1f} ms", digits=1)


async def _spread(ask: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds; the first round is not counted."""
    times = []
    for n in range(_QUESTIONS * (1 + _ROUNDS)):
        started = perf_counter()
        await ask(n)
        times.append((perf_counter() - started) * 1000)
    counted = np.array(times[_QUESTIONS:])
    return float(np.median(counted)), float(np.quantile(counted, 0.99))


class _Exact:
    """The nearest of all rows that were seen, for each question."""

    def __init__(self, questions: NDArray[np.float32]) -> None:
        self.ids: list[list[str]] = [[] for _ in questions]
        self._questions = questions
        self._best = np.empty((len(questions), 0), np.float32)

    def see(self, ids: list[str], rows: list[NDArray[np.float32]]) -> None:
        scores = np.concatenate([self._best, self._questions @ np.stack(rows).T], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
        self._best = np.take_along_axis(scores, order, axis=1)
        self.ids = [
            [(have + ids)[place] for place in places] for have, places in zip(self.ids, order.tolist(), strict=True)
        ]


def _grown(begun: int, in_all: int) -> str:
    return f"{begun / 1e6:,.0f} MB before, {in_all / 1e6:,.0f} MB once all is indexed"


def _memory() -> int:
    """The most this process held so far, in bytes."""
    told = Path("/proc/self/status").read_text(encoding="ascii")
    return int(told.split("VmHWM:")[1].split()[0]) * 1024
