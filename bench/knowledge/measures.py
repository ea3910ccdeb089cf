"""The measures themselves, each over a table of its own and beside LanceDB on the same rows."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bench.knowledge.made import (
    DIMENSION,
    SHAPE,
    batches,
    bytes_on_disk,
    cuts,
    filled,
    in_turn_ms,
    typical_ms,
    vectors,
    words,
)
from bench.table import Figure
from server.knowledge.maintenance import Maintenance
from server.knowledge.reading import Reading
from server.knowledge.rows import rows, schema
from server.knowledge.search import Embedded, Query, hit, searched
from server.knowledge.store import Store

_QUESTIONS = 100
_K = 10
_SETTLE = 60
"""Seconds at most until what came singly is tidied up; versions of the last ten stay."""


async def queries(folder: Path, count: int, bar: float) -> list[Figure]:
    store = await filled(folder, count)
    await store.compact(timedelta(hours=1))
    questions = vectors(_QUESTIONS, -1 % 2**32)

    async def from_disk(n: int) -> object:
        return await Reading.nearest(store, questions[n % _QUESTIONS], None, _K)

    async def from_memory(n: int) -> object:
        return await store.nearest(questions[n % _QUESTIONS], None, _K)

    disk = await typical_ms(from_disk)
    await store.warm()
    memory = await typical_ms(from_memory)
    recall = [await _recall(store, questions[n], hot) for n in range(_QUESTIONS) for hot in (True, False)]
    await store.close()
    name, peer = f"{count:,} vectors", f"LanceDB alone {disk:.1f} ms, {disk / memory:.0f} x"
    return [
        Figure(f"{name}, hot, p50", memory, "ms", bar, peer=peer, digits=2),
        Figure(f"{name}, hot, recall", sum(recall[::2]) / _QUESTIONS, "", 0.99, "at least", digits=4),
        Figure(f"{name}, from disk, p50", disk, "ms", 5 if bar == 1 else None, digits=1),
        Figure(f"{name}, from disk, recall", sum(recall[1::2]) / _QUESTIONS, "", 0.99, "at least", digits=4),
    ]


async def _recall(store: Store, question: object, hot: bool) -> float:
    exact = store._table.vector_search(question).distance_type("cosine").bypass_vector_index()
    wanted = {row["id"] for row in await exact.select(["id", "_distance"]).limit(_K).to_list()}
    read = store.nearest if hot else super(Store, store).nearest
    found = await read(question, None, _K)  # type: ignore[arg-type]  # a row of float32
    return len(wanted & set(found["id"].to_pylist())) / _K


async def hybrid(folder: Path, count: int) -> list[Figure]:
    """Both legs and their fusion for three words and a vector, in turn with LanceDB's own hybrid search."""
    store = await filled(folder, count)
    await store.compact(timedelta(hours=1))
    await store.warm()
    questions = vectors(_QUESTIONS, -1 % 2**32)

    async def theirs(n: int) -> object:
        query = store._table.query().nearest_to(questions[n % _QUESTIONS]).distance_type("cosine")
        return await query.nearest_to_text(words(n % _QUESTIONS), columns="indexed").limit(_K).to_list()

    mine, other = await in_turn_ms(both_halves(store, questions), theirs)
    await store.close()
    return [Figure(f"hybrid over {count:,}, p50", mine, "ms", 5, peer=f"LanceDB's own {other:.1f} ms", digits=1)]


def both_halves(store: Store, questions: NDArray[np.float32]) -> Callable[[int], Awaitable[object]]:
    """Asks for three words and one of the questions, by its number, and makes hits of what both halves find."""

    async def ask(n: int) -> object:
        async def embedded(_: str) -> Embedded:
            return Embedded(questions[n % len(questions)], 0)

        query = Query(text=words(n % len(questions)), k=_K, mode="hybrid", where=None)
        _, ranking = await searched(store, query, embedded)
        return [hit("bench", *found, {}) for found in ranking.rows]

    return ask


async def singles(folder: Path, count: int, writes: int) -> list[Figure]:
    """Single-row writes, one after another, with maintenance beside them; then beside a table written in batches."""
    store = await filled(folder, count)
    await store.compact(timedelta(milliseconds=1))
    disk = bytes_on_disk(folder)
    maintenance = Maintenance(store, "bench")
    maintenance.start()
    for n in range(writes):
        await store.replace(cuts(count + n, 1))
        maintenance.wake()
    right_after = bytes_on_disk(folder)
    deadline = perf_counter() + _SETTLE
    while (await _is_due(store)) and perf_counter() < deadline:  # noqa: ASYNC110  # a measure has no event
        await asyncio.sleep(1)
    settled = bytes_on_disk(folder)
    twin = await filled(folder.with_name("twin"), count + writes)
    await twin.compact(timedelta(milliseconds=1))
    await store.warm()
    await twin.warm()
    question = vectors(1, 7)[0]
    after, like = await in_turn_ms(
        lambda _: store.nearest(question, None, _K), lambda _: twin.nearest(question, None, _K)
    )
    await maintenance.close()
    failures = maintenance.failures
    await store.close()
    await twin.close()
    name = f"after {writes:,} single writes"
    return [
        Figure(f"{name}, latency", after / like, "x", 1.5, peer=f"{like:.2f} ms written in batches", digits=2),
        Figure(f"{name}, disk", settled / disk, "x", 1.5, peer=f"{right_after / disk:.2f} x at once", digits=2),
        Figure(f"{name}, maintenance faults", failures, "", 0, digits=0),
    ]


async def _is_due(store: Store) -> bool:
    """Whether maintenance has something to do yet."""
    measure = await store.measure()
    return measure.is_bloated or measure.is_slow


async def bulk(folder: Path, count: int) -> list[Figure]:
    """Chunks with their vectors given, and the same rows through `table.add`, batch by batch in turn."""
    store = await Store.open(folder / "ours", SHAPE)
    other = await Store.open(folder / "theirs", SHAPE)
    table = await other._connection.create_table("plain", schema=schema(DIMENSION, {}, {}))
    ours = theirs = 0.0
    for batch in batches(count):
        started = perf_counter()
        await table.add(await asyncio.to_thread(rows, batch, {}, DIMENSION))
        theirs += perf_counter() - started
        started = perf_counter()
        await store.replace(batch)
        ours += perf_counter() - started
    await store.close()
    await other.close()
    peer = f"{count / theirs:,.0f} chunks/s by table.add"
    return [Figure(f"bulk ingest of {count:,} chunks", theirs / ours, "x", 0.9, "at least", peer, digits=2)]
