"""Knowledge is backed up at one moment while others write, and answers the same when it is restored."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from config import load
from config.knowledge import ChunkSpec, CollectionSpec
from server.knowledge import Collection, Document
from server.policies.backup.job import Backup
from server.policies.backup.placing import in_place
from tests.knowledge.hashing import HashEmbedder
from tests.policies.test_backup import backup

pytestmark = pytest.mark.anyio

SNAPSHOTS = 4


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "version: 1\n"
        "server: {data: ./data}\n"
        "models: {echo: {engine: remote, url: 'http://127.0.0.1:9/v1', task: embed}}\n"
        "knowledge: {kb: {embed: echo}}\n"
        "policies: {backup: {to: ./backups, what: [knowledge]}}\n",
        encoding="utf-8",
    )
    return file


def opened(data: Path) -> Collection:
    spec = CollectionSpec(embed="embed", chunk=ChunkSpec(tokens=60, overlap=10))
    return Collection("kb", spec, HashEmbedder(), data / "knowledge" / "kb")


def document(number: int) -> Document:
    name = f"doc-{number}"
    return Document(id=name, uri=name, filename=name, text=f"Number {number} speaks of tea and of word{number}.")


async def held(collection: Collection) -> dict[str, str]:
    found = await collection.search("tea", k=1000, mode="text")
    return {hit.document_id: hit.text for hit in found.hits}


async def test_snapshots_made_while_others_write_are_each_whole(recipe: Path, tmp_path: Path) -> None:
    loaded = load(recipe)
    async with opened(tmp_path / "data") as collection:
        await collection.push([document(0)], [])
        written = [0]
        over = asyncio.Event()

        async def write() -> None:
            while not over.is_set():
                number = written[-1] + 1
                await collection.push([document(number)], [f"doc-{number - 3}"])
                written.append(number)

        writing = asyncio.create_task(write())
        made: list[tuple[str, int]] = []
        try:
            for _ in range(SNAPSHOTS):
                least = written[-1]
                one = Backup.declared(loaded, lambda sentence: None)
                report = await asyncio.to_thread(one.make, loaded)
                made.append((report.summary.partition(":")[0], least))
        finally:
            over.set()
            await writing
    assert written[-1] > SNAPSHOTS, "somebody wrote meanwhile"
    for name, least in made:
        one = backup(recipe)
        _, files = one.chosen(name, "knowledge/kb")
        data = tmp_path / "out" / name
        one.write(files, lambda file, data=data: data / file.path)  # type: ignore[misc]
        async with opened(data) as restored:
            numbers = sorted(int(each.removeprefix("doc-")) for each in await held(restored))
            newest = numbers[-1]
            assert newest >= least
            assert numbers == list(range(numbers[0], newest + 1)) and len(numbers) <= 4, "one write apart at most"


async def test_what_is_restored_in_place_answers_the_same(recipe: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with opened(data) as collection:
        await collection.push([document(number) for number in range(5)], [])
        before = [(hit.document_id, hit.score, hit.text) for hit in (await collection.search("word3 tea", k=5)).hits]
    _positions(data, 7)
    loaded = load(recipe)
    await asyncio.to_thread(Backup.declared(loaded, lambda sentence: None).make, loaded)
    async with opened(data) as collection:
        await collection.push([document(9)], ["doc-3"])
    _positions(data, 12)
    one = backup(recipe)
    snapshot, files = one.chosen(None, "knowledge/kb")
    told = in_place(one, snapshot, files, data)
    assert [sentence.partition(";")[0] for sentence in told] == ["knowledge/kb is as it was"]
    async with opened(data) as collection:
        after = [(hit.document_id, hit.score, hit.text) for hit in (await collection.search("word3 tea", k=5)).hits]
    assert after == before
    with contextlib.closing(sqlite3.connect(data / "state.db")) as database:
        places = dict(database.execute("SELECT collection, place FROM knowledge_position"))
    assert places == {"kb": 7, "other": 12}, "the messages of its streams since then are read again, no others"
    [replaced] = (data / "replaced").glob("*/knowledge/kb")
    async with opened(replaced.parent.parent) as collection:
        assert "doc-9" in await held(collection), "what was replaced is kept"


def _positions(data: Path, place: int) -> None:
    """How far two collections have read their streams."""
    with contextlib.closing(sqlite3.connect(data / "state.db", isolation_level=None)) as database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS knowledge_position (collection TEXT NOT NULL, source TEXT NOT NULL, part TEXT "
            "NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (collection, source, part)) WITHOUT ROWID"
        )
        for collection in ("kb", "other"):
            row = (collection, "redis:x", "0", place)
            database.execute("INSERT OR REPLACE INTO knowledge_position VALUES (?, ?, ?, ?)", row)
