"""A changed model or recipe: the old index serves, the new one is built beside it and takes its place whole."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import KnowledgeUnavailable, ServiceError
from server.knowledge import Collection, Document, parse_filter
from server.knowledge.forecast import forecast
from server.knowledge.record import MadeWith, Records
from server.models.prompts import Side
from tests.knowledge.hashing import HashedWords, HashEmbedder

pytestmark = pytest.mark.anyio

CHUNK = ChunkSpec(tokens=60, overlap=10)
SMALLER = ChunkSpec(tokens=20, overlap=2)


class Slow(HashEmbedder):
    """Waits, once it is told to, until it may go on."""

    def __init__(self, salt: str = "") -> None:
        super().__init__(salt=salt)
        self.name = f"slow{salt}"
        self.reached = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.waits_for = ""

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> HashedWords:
        if self.waits_for and any(self.waits_for in text for text in inputs):
            self.reached.set()
            await self.may_go_on.wait()
        return await super().embed(inputs, side)


def collection(
    folder: Path,
    embedder: HashEmbedder,
    chunk: ChunkSpec = CHUNK,
    *,
    others: tuple[HashEmbedder, ...] = (),
    **spec: str,
) -> Collection:
    declared = CollectionSpec(embed=embedder.name, chunk=chunk, **spec)
    return Collection("handbook", declared, embedder, folder / "handbook", others=others)


def note(each: str, text: str) -> Document:
    return Document(id=each, uri=each, filename=each, text=text)


async def texts(of: Collection) -> dict[str, str]:
    held = [await of.document(each.id) for each in await of.documents()]
    return {each.document.id: each.document.text for each in held if each is not None}


def tables(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "handbook").glob("*.lance"))


async def filled(folder: Path, count: int = 30) -> HashEmbedder:
    embedder = HashEmbedder()
    async with collection(folder, embedder) as old:
        await old.upsert([note(f"n{n}", f"# Note {n}\n\n{'It says some words. ' * 8}") for n in range(count)])
    return embedder


@pytest.mark.parametrize("is_loaded", [True, False], ids=["old-model-loaded", "old-model-gone"])
async def test_the_old_index_serves_and_changes_reach_both(tmp_path: Path, is_loaded: bool) -> None:
    before = await filled(tmp_path)
    embedder = Slow(salt="new")
    async with collection(tmp_path, embedder, others=(before,) if is_loaded else ()) as changed:
        embedder.waits_for = "Note 20"
        building = asyncio.create_task(changed.rebuild())
        async with asyncio.timeout(20):
            await embedder.reached.wait()
        found = await changed.search("some words of note 3", mode="vector", k=3)
        assert len(found.hits) == 3
        assert (found.mode, found.note is None) == (("vector", True) if is_loaded else ("text", False))
        progress = changed.upkeep.rebuild
        assert progress is not None
        assert progress.reason == "the embedding model changed (hash -> slownew)"
        assert 0 < changed.upkeep.pending < progress.documents == 30
        pushed = [
            asyncio.create_task(changed.upsert([note("n3", "Wholly other."), note("late", "A late one.")])),
            asyncio.create_task(changed.delete(["n1"])),
        ]
        embedder.may_go_on.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*pushed)
            hits = (await changed.search("late", mode="text", k=1)).hits  # whichever table serves by now
            assert [each.uri for each in hits] == ["late"]
            await building
        held = await texts(changed)
        assert held["n3"] == "Wholly other."
        assert set(held) == {f"n{n}" for n in range(30)} - {"n1"} | {"late"}
        found = await changed.search("late", k=1)
        assert (found.hits[0].uri, found.mode, found.note, changed.upkeep.rebuild) == ("late", "hybrid", None, None)
    assert tables(tmp_path) == ["chunks_2.lance"]


async def test_attributes_that_the_recipe_declares_only_now_are_kept_of_what_comes_meanwhile(tmp_path: Path) -> None:
    await filled(tmp_path)
    embedder = Slow()
    embedder.waits_for = "Note 20"
    async with collection(tmp_path, embedder, attributes={"year": "int"}) as changed:
        building = asyncio.create_task(changed.rebuild())
        async with asyncio.timeout(20):
            await embedder.reached.wait()
            with pytest.raises(KnowledgeUnavailable, match="Until the new index is built"):
                await changed.search("x", filters=parse_filter({"type": "eq", "key": "year", "value": 2024}))
            dated = [
                asyncio.create_task(changed.upsert([replace(note("late", "A late one."), attributes={"year": 2024})])),
                asyncio.create_task(changed.set_attributes("n0", {"year": 2020})),
            ]
            embedder.may_go_on.set()
            await asyncio.gather(*dated, building)
        for each, year in (("late", 2024), ("n0", 2020)):
            found = await changed.search("one note", filters=parse_filter({"type": "eq", "key": "year", "value": year}))
            assert {hit.uri for hit in found.hits} == {each}


async def test_a_document_that_was_cut_as_its_sender_asked_is_cut_so_again(tmp_path: Path) -> None:
    text = "# Note\n\n" + "It says some words. " * 30
    async with collection(tmp_path, HashEmbedder()) as old:
        await old.upsert([note("small", text)], SMALLER)
        await old.upsert([note("usual", text)])
        before = {each: (await old.document(each)).chunks for each in ("small", "usual")}  # type: ignore[union-attr]

    async def asked() -> dict[str, ChunkSpec]:
        return {"small": SMALLER}

    async with collection(tmp_path, HashEmbedder(salt="new")) as changed:
        changed.cut_as(asked)
        await changed.rebuild()
        after = {each: (await changed.document(each)).chunks for each in ("small", "usual")}  # type: ignore[union-attr]
    assert after == before
    assert after["small"] > 2 * after["usual"]


async def test_a_vector_that_was_given_outlives_other_chunking_and_no_other_model(tmp_path: Path) -> None:
    given = np.random.default_rng(4).normal(size=64).astype(np.float32)
    text = "It says some words. " * 30

    async def vectors(of: Collection) -> list[list[float]]:
        hits = (await of.search("words", mode="text")).hits
        return list((await of.vectors([hit.id for hit in hits])).values())

    async with collection(tmp_path, HashEmbedder()) as old:
        await old.push([replace(note("a", text), vector=given, hash="")], [])
    async with collection(tmp_path, HashEmbedder(), SMALLER) as changed:
        await changed.rebuild()
        kept = await vectors(changed)
        assert len(kept) == 1 and np.allclose(kept[0], given)
    async with collection(tmp_path, HashEmbedder(salt="other"), SMALLER) as changed:
        await changed.rebuild()
        assert len(await vectors(changed)) > 1, "the new model read it in pieces"
        report = await changed.push([replace(note("a", text), vector=-given, hash="")], [])
        assert report.written == ("a",)
        assert np.allclose(await vectors(changed), [-given])


async def test_a_model_that_comes_back_before_the_new_index_is_whole_finds_everything(tmp_path: Path) -> None:
    before = await filled(tmp_path)
    other = HashEmbedder(salt="new")
    other.fail_on = "Note 20"
    async with collection(tmp_path, other) as changed:
        with pytest.raises(KnowledgeUnavailable):
            await changed.rebuild()
        await changed.upsert([note("late", "A late one.")])  # its row has no vector of the old model
    assert len(tables(tmp_path)) == 2
    async with collection(tmp_path, before) as again:
        assert (await again.search("late", mode="text", k=1)).hits[0].uri == "late"
        await again.rebuild()
        assert (await again.search("a late one", mode="vector", k=1)).hits[0].uri == "late"
        assert len(await again.documents()) == 31
    assert len(tables(tmp_path)) == 1


async def test_a_recipe_that_is_changed_back_keeps_the_old_index(tmp_path: Path) -> None:
    before = await filled(tmp_path)
    other = HashEmbedder(salt="new")
    other.fail_on = "Note 20"
    async with collection(tmp_path, other) as changed:
        with pytest.raises(KnowledgeUnavailable):
            await changed.rebuild()
    embedded = before.inputs
    async with collection(tmp_path, before) as again:
        await again.rebuild()
        assert len((await again.search("note words", k=50)).hits) == 30
    assert before.inputs <= embedded + 2 + 2 * 30  # a probe, the query, a self-test
    assert tables(tmp_path) == ["chunks_1.lance"]


async def test_another_process_follows_the_switch(tmp_path: Path) -> None:
    await filled(tmp_path)
    async with (
        collection(tmp_path, HashEmbedder(), SMALLER) as reader,
        collection(tmp_path, HashEmbedder(), SMALLER) as builder,
    ):
        old = (await reader.status()).chunks
        await builder.rebuild()
        await reader.upsert([note("late", "A late one.")])
        assert (await builder.search("late", k=1)).hits[0].uri == "late"
        assert (await reader.status()).chunks > old
    async with collection(tmp_path, HashEmbedder(), SMALLER) as last:
        await last.rebuild()
    assert tables(tmp_path) == ["chunks_2.lance"]


async def test_a_disk_without_room_for_both_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path)
    monkeypatch.setattr("server.knowledge.rebuild._ROOM", 1e12)
    async with collection(tmp_path, HashEmbedder(), SMALLER) as changed:
        with pytest.raises(ServiceError, match=r"GB on disk beside the old one .* goes on serving"):
            await changed.rebuild()
        assert len((await changed.search("note words", k=50)).hits) == 30


async def test_what_a_changed_recipe_costs_is_told_without_opening_it(tmp_path: Path) -> None:
    await filled(tmp_path, count=100)

    def told(identity: str = "64", chunk: ChunkSpec = CHUNK, **spec: Any) -> list[str]:
        specs = {"handbook": CollectionSpec(embed="hash", chunk=chunk, **spec)}
        return [str(each) for each in forecast(specs, {"hash": identity}, tmp_path)]

    assert await asyncio.to_thread(told) == []
    (model,) = await asyncio.to_thread(told, identity="other")
    assert model.startswith("knowledge.handbook: the embedding model changed (64 -> other): re-embed ")
    assert " chunks of 100 documents; the old index" in model  # no speed of that model is known
    (chunk,) = await asyncio.to_thread(told, chunk=SMALLER)
    assert "the chunking changed (60 tokens with 10 of overlap -> 20 with 2): re-chunk and re-embed" in chunk
    assert "at the speed measured" in chunk
    (words,) = await asyncio.to_thread(told, language="german")
    assert "the language changed" in words


async def test_a_language_makes_the_index_of_words_anew_and_nothing_else(tmp_path: Path) -> None:
    embedder = HashEmbedder()
    async with collection(tmp_path, embedder, language="none") as plain:
        await plain.upsert([note("a", "Die Häuser stehen dort und sind nicht neu, aber das ist auch gut für den Ort.")])
        assert (await plain.search("haus", mode="text")).hits == []
    embedded = embedder.inputs
    for language in ("german", "auto"):
        async with collection(tmp_path, embedder, language=language) as german:
            await german.rebuild()
        async with collection(tmp_path, embedder, language=language) as german:
            assert [hit.uri for hit in (await german.search("haus", mode="text")).hits] == ["a"]
            (words,) = [each for each in await german.indices() if each.language]
            assert words.language == "German"
    assert embedder.inputs - embedded == 4  # a probe each time it is opened
    assert tables(tmp_path) == ["chunks_1.lance"]


async def test_the_language_is_told_again_when_others_come_to_prevail(tmp_path: Path) -> None:
    english = [note(f"e{n}", "The house is old and it was built by the sea for those who like it.") for n in range(3)]
    german = [
        note(f"d{n}", "Das Haus ist alt und die Leute sind nicht von hier, denn das ist so mit den Häusern.")
        for n in range(40)
    ]
    async with collection(tmp_path, HashEmbedder()) as mixed:
        await mixed.upsert(english)
        assert [each.language for each in await mixed.indices() if each.language] == ["English"]
        await mixed.upsert(german)
    async with collection(tmp_path, HashEmbedder()) as mixed:
        assert [each.language for each in await mixed.indices() if each.language] == ["German"]


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "serving.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"serving\.json"):
        Records(tmp_path).read()


def test_only_what_decides_the_rows_makes_them_others() -> None:
    made = MadeWith.of(CHUNK, {"b": "int", "a": "string"}, model="m", identity="1", dimension=3, context=9)
    same = MadeWith.of(CHUNK, {"a": "string", "b": "int"}, model="n", identity="1", dimension=3, context=9)
    assert made.fingerprint == same.fingerprint
    assert not made.is_other_model(same)
    assert made.unlike(same, other_model=False) == []
