"""What a collection finds out about its own legs, when it asks, and that a fault there costs no answer."""

import logging
from pathlib import Path

import msgspec
import pytest

from server.knowledge.confidence import NAME, UNKNOWN, Confidence
from tests.knowledge.conftest import Make
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio

PAGES = 30


def write(docs: Path, first: int, last: int) -> None:
    """Each with five words of its own, which come again and again."""
    for n in range(first, last):
        words = " ".join(f"word{n}x{m % 5}" for m in range(25))
        (docs / f"{n}.md").write_text(f"Page {n} tells of {words}.", encoding="utf-8")


async def test_legs_that_find_their_chunks_are_trusted(make: Make, docs: Path, tmp_path: Path) -> None:
    write(docs, 0, PAGES)
    async with make(HashEmbedder(dimension=2048)) as collection:
        await collection.sync()
        known = collection.confidence
        assert known.chunks >= PAGES
        assert known.vector > 0.9
        assert known.text > 0.9
        assert (await collection.search("word8x1")).weights == known.weights
        assert (await collection.search("word8x1", weights=(1.0, 3.0))).weights == (1.0, 3.0)
    kept = msgspec.json.decode((tmp_path / "data" / NAME).read_bytes(), type=Confidence)
    assert kept == known
    embedder = HashEmbedder(dimension=2048)
    async with make(embedder) as again:
        before = embedder.inputs
        assert again.confidence == known
        await again.sync()
        assert embedder.inputs == before


async def test_a_model_that_tells_no_chunk_from_another_loses_its_weight(make: Make, docs: Path) -> None:
    write(docs, 0, PAGES)
    async with make(HashEmbedder(dimension=1)) as collection:
        await collection.sync()
        assert collection.confidence.vector < 0.4
        vector, text = collection.confidence.weights
        assert vector < 0.4 < text


async def test_it_is_asked_again_when_half_as_much_came_to_it(make: Make, docs: Path) -> None:
    write(docs, 0, PAGES)
    async with make(HashEmbedder()) as collection:
        await collection.sync()
        chunks = collection.confidence.chunks
        write(docs, PAGES, PAGES + 3)
        await collection.sync()
        assert collection.confidence.chunks == chunks
        write(docs, PAGES, 2 * PAGES)
        await collection.sync()
        assert collection.confidence.chunks > 1.5 * chunks


async def test_a_small_collection_trusts_both(make: Make, docs: Path) -> None:
    write(docs, 0, 3)
    async with make() as collection:
        await collection.sync()
        assert collection.confidence.weights == UNKNOWN.weights


async def test_a_fault_is_told_and_searches_go_on(make: Make, docs: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(docs, 0, 2 * PAGES)
    embedder = HashEmbedder()
    async with make(embedder) as collection:
        await collection.sync()
        known = collection.confidence
        for n in range(PAGES, 2 * PAGES):
            (docs / f"{n}.md").unlink()
        embedder.fail_on = "word"
        with caplog.at_level(logging.WARNING, logger="server.knowledge.confidence"):
            await collection.sync()
        assert "could not be told" in caplog.text
        assert collection.confidence == known
        assert (await collection.search("page 3", mode="text")).hits


async def test_what_another_process_kept_is_not_taken_where_it_speaks_of_other_rows(
    make: Make, docs: Path, tmp_path: Path
) -> None:
    write(docs, 0, 3)
    async with make() as collection:
        await collection.sync()
    other = msgspec.structs.replace(UNKNOWN, table="another table", vector=0.0)
    (tmp_path / "data" / NAME).write_bytes(msgspec.json.encode(other))
    async with make() as collection:
        assert collection.confidence == UNKNOWN
    (tmp_path / "data" / NAME).write_bytes(b"{")
    async with make() as collection:
        assert collection.confidence == UNKNOWN
