"""Files on their way into a collection: one at fault holds up no other, and what changes meanwhile counts."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.knowledge import ChunkSpec, CollectionSpec
from server.files import Files
from server.knowledge import Collection, Filter, Shelf, parse_filter
from server.models.prompts import Side
from server.state import State
from server.vector_stores.facts import Batch, Facts, StoreFact, StoreFile
from server.vector_stores.intake import Intake
from tests.knowledge.hashing import HashedWords, HashEmbedder

pytestmark = pytest.mark.anyio

STORE = StoreFact("vs_1", "one", None, "embed", {}, None, None, 1, 1)
KIND_OLD: Filter = parse_filter({"type": "eq", "key": "kind", "value": "old"})


class Gated(HashEmbedder):
    """An embedder that is always ready, and embeds only while `open` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.open = asyncio.Event()
        self.open.set()
        self.met = asyncio.Event()

    async def ready(self) -> None:
        return None

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> HashedWords:
        self.met.set()
        await self.open.wait()
        return await super().embed(inputs, side)


@dataclass
class Bench:
    """One store with its intake, which takes in when a test says so."""

    facts: Facts
    files: Files
    shelf: Shelf
    embedder: Gated
    intake: Intake

    async def attach(self, *texts: str, kind: str = "old", chunk: ChunkSpec | None = None) -> list[str]:
        """Their ids; the first is the batch's too."""
        rows = []
        for n, text in enumerate(texts):
            async with self.files.incoming() as incoming:
                await incoming.write(text.encode())
                stored = await self.files.keep(incoming, f"{n}.txt", "assistants", None)
            rows.append(StoreFile(0, STORE.id, stored.id, "in_progress", None, None, {"kind": kind}, chunk, 0, 1))
        await self.facts.attach(rows, Batch(rows[0].file, STORE.id, 1, cancelled=False, files=rows))
        return [row.file for row in rows]

    async def file(self, each: str) -> StoreFile:
        found = await self.facts.file(STORE.id, each)
        assert found is not None
        return found

    async def held(self) -> set[str]:
        return {each.id for each in await self.shelf.collection.documents()}

    @asynccontextmanager
    async def embedding(self) -> AsyncIterator[None]:
        """The block runs while the intake is in the middle of embedding; after it the intake has drained."""
        self.embedder.open.clear()
        self.embedder.met.clear()
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(self.intake.drain())
            await self.embedder.met.wait()
            yield
            self.embedder.open.set()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    embedder = Gated()
    spec = CollectionSpec(embed="embed", chunk=ChunkSpec(tokens=60, overlap=10))
    collection = Collection(STORE.id, spec, embedder, tmp_path / "store", undeclared=True)
    shelf = Shelf(STORE.id, collection, embedder)
    async with State.open(tmp_path / "state.db") as state:
        facts, files = Facts(state), await Files.open(state, tmp_path / "files")
        await facts.put(STORE)
        keeping = asyncio.create_task(shelf.keep())
        await shelf.ready()
        yield Bench(facts, files, shelf, embedder, Intake(shelf, facts, files))
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def test_a_file_that_breaks_the_model_fails_alone(bench: Bench) -> None:
    good, bad, other = await bench.attach("cats sleep", "dogs poison", "birds sing")
    bench.embedder.fail_on = "poison"
    await bench.intake.drain()
    assert await bench.held() == {good, other}
    assert (await bench.file(good)).bytes > 0
    failed = await bench.file(bad)
    assert (failed.status, failed.code) == ("failed", "server_error")
    assert "the embedder broke" in (failed.message or "")


async def test_files_that_are_cut_in_different_ways_go_in_each_as_it_says(bench: Bench) -> None:
    text = "A sentence of some words. " * 60
    (plain,) = await bench.attach(text)
    (small,) = await bench.attach(text + ".", chunk=ChunkSpec(tokens=20, overlap=0))
    await bench.intake.drain()
    collection = bench.shelf.collection
    whole, cut = await collection.document(plain), await collection.document(small)
    assert whole is not None
    assert cut is not None
    assert cut.chunks > 2 * whole.chunks > 2


async def test_a_file_that_is_cancelled_or_detached_meanwhile_does_not_stay(bench: Bench) -> None:
    cancelled, detached = await bench.attach("cats sleep", "dogs bark")
    async with bench.embedding():
        await bench.facts.detach(STORE.id, detached)
        batch = await bench.facts.batch(STORE.id, cancelled)
        assert batch is not None
        await bench.facts.cancel(batch)
    assert await bench.held() == set()
    assert (await bench.file(cancelled)).status == "cancelled"
    assert await bench.facts.file(STORE.id, detached) is None


async def test_attributes_that_change_meanwhile_are_those_that_stay(bench: Bench) -> None:
    (each,) = await bench.attach("cats sleep")
    async with bench.embedding():
        await bench.facts.set_attributes(STORE.id, each, {"kind": "new"})
    assert (await bench.file(each)).attributes == {"kind": "new"}
    (hit,) = (await bench.shelf.collection.search("cats")).hits
    assert hit.attributes == {"kind": "new"}
    assert (await bench.shelf.collection.search("cats", filters=KIND_OLD)).hits == []


async def test_a_file_whose_bytes_were_deleted_fails(bench: Bench) -> None:
    (each,) = await bench.attach("cats sleep")
    await bench.files.delete(each)
    await bench.intake.drain()
    assert (await bench.file(each)).code == "invalid_file"


async def test_more_files_than_are_taken_at_once_are_all_taken(bench: Bench) -> None:
    every = await bench.attach(*(f"text number {n}" for n in range(70)))
    await bench.intake.drain()
    assert await bench.held() == set(every)
    assert {(await bench.file(each)).status for each in every} == {"completed"}
