"""Keeping a collection up to date: what is added, changed, gone, refused, interrupted, and made with another recipe."""

import asyncio
from pathlib import Path

import pytest

from config.knowledge import ChunkSpec
from server.errors import InvalidValue, KnowledgeUnavailable
from server.knowledge import Collection, Document, IngestReport
from server.knowledge.report import Advance
from tests.knowledge.conftest import Make
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio

PAGES = {
    "a.md": "# Apples\n\nApples are red and crisp.\n",
    "sub/b.md": "# Bears\n\nBears sleep in winter.\n",
    "c.txt": "Cats chase mice at night.",
}


def write(folder: Path, pages: dict[str, str]) -> None:
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


async def uris(collection: Collection, query: str) -> list[str]:
    return [hit.uri for hit in (await collection.search(query, mode="text")).hits]


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return len(report.added), len(report.updated), len(report.unchanged), len(report.deleted)


async def test_a_sync_adds_updates_keeps_and_deletes(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    lines: list[Advance] = []
    embedder = HashEmbedder()
    async with make(embedder) as collection:
        report = await collection.sync(lines.append)
        assert report.added == ("a.md", "c.txt", "sub/b.md")
        assert str(lines[-1]).startswith("3 of 3 files")
        embedded = embedder.inputs
        assert counts(await collection.sync()) == (0, 0, 3, 0)
        assert embedder.inputs == embedded
        write(docs, {"a.md": "# Apples\n\nApples are green.\n", "d.md": "# Dogs\n\nDogs bark.\n"})
        (docs / "c.txt").unlink()
        report = await collection.sync()
        assert (report.added, report.updated, report.unchanged, report.deleted) == (
            ("d.md",),
            ("a.md",),
            ("sub/b.md",),
            ("c.txt",),
        )
        assert await uris(collection, "red") == []
        assert await uris(collection, "green") == ["a.md"]
        assert await uris(collection, "mice") == []
        status = await collection.status()
        assert (status.state, status.documents, status.chunks, status.last) == ("ready", 3, 3, report)
        assert str(report).startswith("1 added, 1 updated, 1 unchanged, 1 deleted")


async def test_spans_point_into_the_file_itself(make: Make, docs: Path) -> None:
    text = "---\ntitle: Long\n---\n# Top\n\n" + "\n\n".join(f"Paragraph {n} has words in it." * 3 for n in range(20))
    write(docs, {"long.md": text})
    async with make() as collection:
        await collection.sync()
        hits = (await collection.search("paragraph", k=50)).hits
        assert len(hits) > 5
        for hit in hits:
            assert text[hit.start : hit.end] == hit.text
            assert (hit.title, hit.heading, hit.filename) == ("Long", "Top", "long.md")


async def test_what_cannot_be_read_is_told_and_its_earlier_version_stays(make: Make, docs: Path) -> None:
    write(docs, {**PAGES, "e.md": "---\nyear: soon\n---\nx", "empty.md": "\n \n"})
    (docs / "image.png").write_bytes(b"\x89PNG\0\0")
    async with make(attributes={"year": "int"}) as collection:
        report = await collection.sync()
        assert sorted(each.uri for each in report.skipped) == ["e.md", "empty.md", "image.png"]
        assert any("whole number" in line for line in (await collection.status()).skipped)
        write(docs, {"a.md": "---\nyear: never\n---\nchanged"})
        report = await collection.sync()
        assert counts(report) == (0, 0, 2, 0)
        assert await uris(collection, "crisp") == ["a.md"]
        write(docs, {"a.md": ""})
        assert (await collection.sync()).deleted == ("a.md",)
        assert await uris(collection, "crisp") == []


async def test_a_broken_ingest_leaves_whole_documents_and_the_next_one_finishes(make: Make, docs: Path) -> None:
    write(docs, {f"{n:02}.md": f"Page {n}. " + "Filling words go here. " * 600 for n in range(10)})
    embedder = HashEmbedder()
    async with make(embedder) as collection:
        await collection.sync()
        before = (await collection.status()).chunks
        write(docs, {f"{n:02}.md": f"Fresh {n}. " + "Other words go there. " * 600 for n in range(10)})
        write(docs, {"08.md": "poison " + "Other words go there. " * 600})
        embedder.fail_on = "poison"
        with pytest.raises(KnowledgeUnavailable, match="the embedder broke"):
            await collection.sync()
        assert (await collection.status()).state == "failed"
        old, new = set(await _uris_of(collection, "page")), set(await _uris_of(collection, "fresh"))
        assert old
        assert new
        assert old & new == set()
        assert old | new == {f"{n:02}.md" for n in range(10)}
        embedder.fail_on = None
        report = await collection.sync()
        assert (len(report.updated), len(report.unchanged)) == (len(old), len(new))
        status = await collection.status()
        assert (status.state, status.error, status.documents) == ("ready", None, 10)
        assert status.chunks == pytest.approx(before, rel=0.1)


async def _uris_of(collection: Collection, word: str) -> list[str]:
    return [hit.uri for hit in (await collection.search(word, mode="text", k=100)).hits]


async def test_a_cancelled_ingest_leaves_the_collection_ready(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make() as collection:
        reached = asyncio.Event()
        task = asyncio.create_task(collection.sync(lambda line: reached.set()))
        async with asyncio.timeout(10):
            await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await collection.status()).state == "ready"
        assert len((await collection.sync()).added) + len((await collection.sync()).unchanged) >= 3


async def test_a_source_folder_that_is_missing_takes_nothing_away(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make(glob="sub/*.md") as collection:
        await collection.sync()
        (docs / "sub").rename(docs / "away")
        report = await collection.sync()
        assert (report.deleted, len(report.skipped)) == ((), 1)
        assert await uris(collection, "winter") == ["b.md"]


async def test_a_source_that_is_no_longer_declared_takes_its_documents_away(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make() as collection:
        await collection.sync()
    async with make(glob="sub/*.md") as collection:
        report = await collection.sync()
        assert sorted(report.deleted) == ["a.md", "c.txt"]
        assert report.updated == ("b.md",)
        assert [stored.uri for stored in (await collection.search("winter")).hits] == ["b.md"]


async def test_what_was_ingested_by_hand_survives_a_sync_and_follows_its_folder(
    make: Make, docs: Path, tmp_path: Path
) -> None:
    write(docs, PAGES)
    own = tmp_path / "own"
    write(own, {"x.md": "Xylophones ring.", "y.md": "Yachts sail."})
    async with make() as collection:
        await collection.sync()
        assert (await collection.ingest(own)).added == ("x.md", "y.md")
        assert counts(await collection.sync()) == (0, 0, 3, 0)
        assert await uris(collection, "xylophones") == ["x.md"]
        (own / "x.md").unlink()
        report = await collection.ingest(own)
        assert (report.deleted, report.unchanged) == (("x.md",), ("y.md",))
        assert counts(await collection.ingest(own / "y.md")) == (0, 0, 1, 0)
        with pytest.raises(InvalidValue, match="does not exist"):
            await collection.ingest(own / "nothing")


async def test_a_file_of_a_source_stays_with_it_when_it_is_also_ingested(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make() as collection:
        await collection.ingest(docs / "a.md")
        report = await collection.sync()
        assert (len(report.added), report.updated) == (2, ("a.md",))
        assert counts(await collection.ingest(docs)) == (0, 0, 3, 0)
        (docs / "a.md").unlink()
        assert (await collection.sync()).deleted == ("a.md",)


async def test_documents_can_be_put_in_directly_by_id(make: Make) -> None:
    def note(text: str, **attributes: str | int) -> Document:
        return Document(id="note-1", uri="note", filename="note", text=text, attributes=attributes)

    async with make(glob=None, attributes={"team": "string"}) as collection:
        assert counts(await collection.upsert([note("First words.", team="ops")])) == (1, 0, 0, 0)
        assert counts(await collection.upsert([note("Twice."), note("Second words \ud800.")])) == (0, 2, 0, 0)
        hits = (await collection.search("words")).hits
        assert [(hit.text, hit.attributes) for hit in hits] == [("Second words ?.", {})]
        with pytest.raises(InvalidValue, match="`team` should be a string"):
            await collection.upsert([note("x", team=1)])
        with pytest.raises(InvalidValue, match="not declared"):
            await collection.upsert([note("x", colour="red")])


@pytest.mark.parametrize("change", ["chunk", "attributes", "dimension", "model"])
async def test_another_recipe_or_model_makes_the_table_anew_and_loses_nothing(
    make: Make, docs: Path, tmp_path: Path, change: str
) -> None:
    write(docs, PAGES)
    own = tmp_path / "own"
    write(own, {"x.md": "# X\n\nXylophones ring.", "y.md": "# Yachts\n\nYachts sail.\n\n\nFar away."})
    async with make(attributes={"team": "string"}) as collection:
        await collection.sync()
        await collection.ingest(own)
        await collection.upsert(
            [Document(id="n", uri="n", filename="n", text="# Note\n\nNotes stay.", attributes={"team": "ops"})]
        )
    (own / "y.md").unlink()
    (docs / "c.txt").unlink()
    embedder = HashEmbedder(dimension=32 if change == "dimension" else 64, salt="other" if change == "model" else "")
    chunk = ChunkSpec(tokens=30, overlap=0) if change == "chunk" else None
    attributes = {"team": "int"} if change == "attributes" else {"team": "string"}
    async with make(embedder, chunk=chunk, attributes=attributes) as collection:
        await collection.sync()
        assert await uris(collection, "xylophones") == ["x.md"]  # the old index
        await collection.rebuild()
        for query, expected in {
            "apples": ["a.md"],
            "mice": [],
            "xylophones": ["x.md"],
            "sail": ["y.md"],
            "notes": ["n"],
        }.items():
            assert await uris(collection, query) == expected
        note = (await collection.search("notes stay", mode="vector", k=1)).hits[0]
        assert note.text == "# Note\n\nNotes stay."
        assert note.attributes == ({} if change == "attributes" else {"team": "ops"})
        assert counts(await collection.sync()) == (0, 0, 2, 0)
    tables = [path.name for path in (tmp_path / "data").glob("*.lance")]
    assert tables == ["chunks_2.lance"]


async def test_an_interrupted_rebuild_is_taken_up_again(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make() as collection:
        await collection.sync()
        await collection.upsert([Document(id="n", uri="n", filename="n", text="Notes stay.")])
    embedder = HashEmbedder(salt="other")
    async with make(embedder) as collection:
        embedder.fail_on = "Notes"
        with pytest.raises(KnowledgeUnavailable):
            await collection.rebuild()
        assert await uris(collection, "notes") == ["n"]
    embedder.fail_on = None
    async with make(embedder) as collection:
        assert counts(await collection.sync()) == (0, 0, 3, 0)
        await collection.rebuild()
        assert (await collection.search("notes", mode="vector", k=1)).hits[0].uri == "n"


async def test_two_collections_on_one_folder_see_each_others_rows(make: Make, docs: Path) -> None:
    write(docs, PAGES)
    async with make() as one, make() as two:
        assert (await two.search("apples")).hits == []
        first = (await two.status()).version
        await one.sync()
        assert await uris(two, "apples") == ["a.md"]
        assert (await two.search("apples")).version > first
        assert counts(await two.sync()) == (0, 0, 3, 0)


async def test_two_syncs_at_once_store_each_chunk_once(make: Make, docs: Path) -> None:
    write(docs, {f"{n}.md": f"# Page {n}\n\nWords about topic{n}." for n in range(20)})
    async with make() as one, make() as two:
        await asyncio.gather(one.sync(), two.sync(), one.sync())
        status = await one.status()
        assert (status.documents, status.chunks) == (20, 20)
        assert await uris(two, "topic7") == ["7.md"]


async def test_a_folder_that_is_no_table_is_a_clear_fault(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data" / "chunks_1.lance").mkdir(parents=True)
    collection = make()
    with pytest.raises(KnowledgeUnavailable, match="handbook could not be opened"):
        async with collection:
            raise AssertionError("it must not open")
    assert (await collection.status()).state == "failed"


async def test_a_closed_collection_says_so(make: Make) -> None:
    collection = make()
    with pytest.raises(KnowledgeUnavailable, match="not open"):
        await collection.search("x")
    assert (await collection.status()).state == "opening"
