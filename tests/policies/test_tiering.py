"""Documents nobody asks for move to cold storage, stay searchable there, and come back: never lost, never doubled."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from config import load
from server.errors import Conflict, InvalidValue, KnowledgeUnavailable, ServiceError
from server.knowledge import parse_filter
from server.knowledge.catalogue import Use
from server.knowledge.cold import ColdTable
from server.policies.tiering.choosing import batches, unused, wanted
from tests.policies.tiered import DAY, document, shown, tiered

pytestmark = pytest.mark.anyio

BOTH = ("warm", "cold")
ROOT = Path(__file__).parents[2]
KILLED_EVERY = 2
"""The program `tests.policies.tiered` kills at each."""


# ---- which documents move -------------------------------------------------------------------------------------------


def test_documents_move_by_age_and_use_those_longest_unused_first() -> None:
    uses = [
        Use("new", since=90, used=0, reads=0),
        Use("old", since=10, used=0, reads=0),
        Use("older", since=5, used=0, reads=0),
        Use("read", since=5, used=95, reads=7),
        Use("read long ago", since=5, used=8, reads=7),
        Use("just now", since=50, used=0, reads=0),
    ]
    assert unused(uses, after=50, now=100) == ["older", "read long ago", "old", "just now"]
    assert unused(uses, after=200, now=100) == []


def test_what_was_found_since_it_moved_comes_back_the_most_wanted_first() -> None:
    uses = [Use("a", 0, 50, 1), Use("b", 0, 61, 1), Use("c", 0, 62, 9), Use("local", 0, 99, 9)]
    assert wanted({"a": 60, "b": 60, "c": 60}, uses) == ["c", "b"]


def test_documents_move_together_up_to_a_number_of_bytes() -> None:
    assert list(batches([], {})) == []
    assert list(batches(["a", "b", "c"], {"a": 15 * 2**20, "b": 2**20, "c": 1})) == [["a", "b"], ["c"]]
    assert [len(part) for part in batches([f"{n}" for n in range(300)], {})] == [256, 44]


# ---- one collection -------------------------------------------------------------------------------------------------


async def test_cold_documents_are_found_as_they_were_and_come_back_when_they_are_read(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(8)], [])
        queries = ("subject3", "subject6 part1", "page word", "nothing of this")
        before = [shown(await each.search(query, k=99, mode="vector")) for query in queries]
        listed = await each.collection.documents()
        held = await each.collection.document("d3")
        hits = [hit for hit in (await each.search("subject3")).hits if hit.document_id == "d3"]
        wide = await each.collection.widened(hits, 1)
        vectors = await each.collection.vectors([hit.id for hit in hits])

        assert (await each.run()).figures["documents_out"] == 0, "nothing is old yet"
        await each.used("d1", "d2")
        each.now += 20 * DAY
        await each.used("d0")
        report = await each.run(days=15)
        assert report.figures["documents_out"] == 7 and await each.local() == {"d0"}
        assert await each.cold() == {f"d{n}" for n in range(1, 8)}
        each.now += 1

        assert [shown(await each.search(query, BOTH, k=99, mode="vector")) for query in queries] == before
        assert await each.collection.documents() == listed
        assert await each.collection.document("d3") == held
        # Words are weighed by how rare they are in each of both places, so that their scores differ a little.
        cold = [hit for hit in (await each.search("subject3", BOTH)).hits if hit.document_id == "d3"]
        assert len(cold) == len(hits) == 4 and {hit.tier for hit in cold} == {"cold"}
        cold.sort(key=lambda hit: hits.index(next(one for one in hits if one.id == hit.id)))
        assert [hit.text for hit in await each.collection.widened(cold, 1)] == [hit.text for hit in wide]
        assert await each.collection.vectors([hit.id for hit in cold]) == vectors
        team = {"type": "eq", "key": "team", "value": "team1"}
        found = await each.search("subject4", BOTH, filters=parse_filter(team), k=99)
        assert {hit.document_id for hit in found.hits} == {"d1", "d4", "d7"}

        await each.used("d5")
        report = await each.run(days=1)
        assert report.figures["documents_back"] == 2 and await each.local() == {"d0", "d3", "d5"}
        assert [shown(await each.search(query, BOTH, k=99, mode="vector")) for query in queries] == before
        assert await each.collection.documents() == listed
    async with tiered(tmp_path) as each:
        assert [shown(await each.search(query, BOTH, k=99, mode="vector")) for query in queries] == before, (
            "after a restart"
        )


async def test_searches_see_every_document_once_while_documents_move(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(6)], [])
        await each.run()
        chunks = sorted(hit.id for hit in (await each.search("page", k=99, mode="vector")).hits)
        moving, searches = True, 0

        async def search() -> None:
            nonlocal searches
            while moving:
                found = await each.search("page", BOTH, k=99, mode="vector")
                assert sorted(hit.id for hit in found.hits) == chunks
                searches += 1

        searching = [asyncio.create_task(search()) for _ in range(2)]
        for _ in range(3):
            await each.run(days=31)
            assert len(await each.cold()) == 6
            each.now += 1
            await each.used(*(f"d{n}" for n in range(6)))
            await each.run(days=1)
            assert len(await each.local()) == 6
        moving = False
        await asyncio.gather(*searching)
        assert searches > 2


async def test_reads_are_counted_and_written_down(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(3)], [])
        await each.run()
        each.now += 20 * DAY
        each.collection.read((await each.search("subject1", k=1)).hits)
        await each.collection.document("d2")
        await each.run(days=15)
        assert await each.cold() == {"d0"}
        assert (await each.search("subject0", BOTH, k=1)).hits[0].document_id == "d0"
        each.collection.read((await each.search("subject0", BOTH, k=1)).hits)
        await each.run(days=1)
        assert await each.cold() == set(), "what was read in cold storage comes back"


EVEN = (0.5, 0.5)


async def test_cold_storage_is_searched_where_the_local_answer_is_weak(tmp_path: Path) -> None:
    async with tiered(tmp_path, weak=0.3) as each:
        await each.collection.push([document(n) for n in range(6)], [])
        await each.run()
        each.now += 35 * DAY
        await each.used("d0", "d1")
        await each.run()
        # The weights that the collection learns by and by would move the scores.
        strong = await each.search("subject1 part2", k=2, weights=EVEN)
        assert strong.hits[0].score > 0.3 and strong.tiers == ("warm",) and strong.why == ""
        weak = await each.search("subject4 part2", k=2, weights=EVEN)
        assert weak.tiers == BOTH and weak.hits[0].document_id == "d4"
        assert "the best score in local storage is 0." in weak.why and "below 0.3" in weak.why
        few = await each.search("subject1 part2", k=40)
        assert few.tiers == BOTH and "of 40 chunks" in few.why
        assert (await each.search("subject4 part2", ("hot", "warm"), k=2)).tiers == ("warm",)
        alone = await each.search("subject1 part2", ("cold",), k=5)
        assert alone.tiers == ("cold",) and not {"d0", "d1"} & {hit.document_id for hit in alone.hits}
        with pytest.raises(InvalidValue, match="as_of"):
            await each.search("subject1", BOTH, as_of=1)


async def test_what_changes_while_it_is_cold_leaves_no_cold_copy(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(5)], [])
        await each.run()
        await each.run(days=31)
        assert await each.cold() == {f"d{n}" for n in range(5)}
        same = await each.collection.push([document(3)], [])
        assert same.unchanged == ("d3",) and await each.cold() == {f"d{n}" for n in range(5)}
        applied = await each.collection.push([document(1, "anew")], ["d2"])
        assert (applied.written, applied.deleted) == (("d1",), ("d2",))
        await each.collection.set_attributes("d4", {"team": "other"})
        assert await each.cold() == {"d0", "d3"} and await each.local() == {"d1", "d4"}
        hits = (await each.search("subject1 subject2 subject4", BOTH, k=60)).hits
        assert {hit.document_id for hit in hits} == {"d0", "d1", "d3", "d4"}
        assert all("anew" in hit.text for hit in hits if hit.document_id == "d1" and "by word" in hit.text)
        assert {hit.attributes["team"] for hit in hits if hit.document_id == "d4"} == {"other"}
        await each.run()
        table = await each.tier.table(each.collection._serving.store.shape)  # type: ignore[union-attr]
        assert set(await table.documents()) == {"d0", "d3"}, "the rows are deleted there too"
        await table.close()


async def test_files_of_cold_documents_are_not_taken_in_anew(tmp_path: Path) -> None:
    files = tmp_path / "docs"
    files.mkdir()
    for n in range(4):
        (files / f"{n}.md").write_text(document(n).text, encoding="utf-8")
    async with tiered(tmp_path, files=files) as each:
        await each.collection.sync()
        await each.run()
        await each.run(days=31)
        assert len(await each.cold()) == 4
    (files / "1.md").write_text(document(1, "anew").text, encoding="utf-8")
    (files / "2.md").unlink()
    async with tiered(tmp_path, files=files) as each:
        report = await each.collection.sync()
        assert [len(part) for part in (report.unchanged, report.updated, report.deleted, report.added)] == [2, 1, 1, 0]
        assert len(await each.cold()) == 2 and len(await each.local()) == 1
        assert {hit.filename for hit in (await each.search("page", BOTH, k=60)).hits} == {"0.md", "1.md", "3.md"}


async def test_a_document_that_changes_while_it_moves_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(4)], [])
        await each.run()
        put = ColdTable.put

        async def slow(table: ColdTable, rows: pa.Table, ids: Any) -> None:
            await put(table, rows, ids)
            await each.collection.push([document(1, "anew")], ["d2"])
            await each.collection.set_attributes("d3", {"team": "other"})

        monkeypatch.setattr(ColdTable, "put", slow)
        report = await each.run(days=31)
        monkeypatch.undo()
        assert report.figures["documents_out"] == 1 and "3 documents changed" in report.details[0]
        assert await each.cold() == {"d0"} and await each.local() == {"d1", "d3"}
        hits = (await each.search("page", BOTH, k=60)).hits
        assert len(hits) == len({hit.id for hit in hits}) and "d2" not in {hit.document_id for hit in hits}


async def test_a_copy_that_is_not_what_was_written_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(3)], [])
        await each.run()
        put = ColdTable.put

        async def damaged(table: ColdTable, rows: pa.Table, ids: Any) -> None:
            texts = pa.array(["?", *rows["text"].to_pylist()[1:]], pa.string())
            await put(table, rows.set_column(rows.column_names.index("text"), rows.schema.field("text"), texts), ids)

        monkeypatch.setattr(ColdTable, "put", damaged)
        with pytest.raises(ServiceError, match="otherwise than it was written"):
            await each.run(days=31)
        monkeypatch.undo()
        assert await each.cold() == set() and await each.local() == {"d0", "d1", "d2"}
        report = await each.run()
        assert report.figures["documents_out"] == 3 and "cut off" in report.details[0]


async def test_cold_documents_come_back_before_the_index_is_built_for_another_model(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(4)], [])
        await each.run()
        await each.run(days=31)
    async with tiered(tmp_path, salt="other") as each:
        assert len(await each.cold()) == 4
        assert len({hit.document_id for hit in (await each.search("page", BOTH, k=60)).hits}) == 4
        await each.collection.rebuild()
        assert await each.cold() == set() and len(await each.local()) == 4
        await each.run(days=31)
        report = await each.run(days=31)
        assert len(await each.cold()) == 4, report
        assert (await each.search("subject2", BOTH)).hits[0].document_id == "d2"


async def test_documents_of_a_collection_that_is_not_listed_come_back(tmp_path: Path) -> None:
    async with tiered(tmp_path) as each:
        await each.collection.push([document(n) for n in range(3)], [])
        await each.run()
        await each.run(days=31)
        each.policy.spec = each.policy.spec.model_copy(update={"collections": ()})
        assert (await each.run(days=31)).figures["documents_back"] == 3
        assert await each.local() == {"d0", "d1", "d2"} and await each.cold() == set()


async def test_a_place_of_another_server_or_one_that_lost_its_rows_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "cold"
    async with tiered(tmp_path / "one", place) as each:
        await each.collection.push([document(n) for n in range(3)], [])
        await each.run()
        await each.run(days=31)
    async with tiered(tmp_path / "two", place) as other:
        with pytest.raises(Conflict, match="belongs to another data directory"):
            await other.run()
    place.rename(tmp_path / "away")
    async with tiered(tmp_path / "one", place) as each:
        with pytest.raises(KnowledgeUnavailable, match="lacks the cold documents"):
            await each.search("subject1", BOTH)
        degraded = await each.search("subject1")
        assert degraded.hits == [] and "cold storage was left out" in degraded.why
        each.now += 40 * DAY
        await each.used("d1")
        with pytest.raises(KnowledgeUnavailable, match="lacks the cold documents"):
            await each.run()
    (place / "hearth-cold.json").unlink()
    (place / "handbook").rmdir()
    place.rmdir()
    (tmp_path / "away").rename(place)
    async with tiered(tmp_path / "one", place) as each:
        each.now += 50 * DAY
        await each.used("d1")
        assert (await each.run()).figures["documents_back"] == 1


def test_a_process_killed_in_the_middle_of_a_move_loses_and_doubles_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.policies.tiered", str(tmp_path), str(KILLED_EVERY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    told = [line for line in done.stdout.splitlines() if line.startswith("killed")]
    assert len(told) > 12 // KILLED_EVERY
    assert [line for line in told if not line.endswith(": nothing lost, nothing doubled")] == []


def test_a_collection_that_is_not_there_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "version: 1\n"
        "models: {embed: {engine: auto, source: 'made:random', task: embed}}\n"
        "knowledge: {handbook: {embed: embed}}\n"
        "policies: {tiering: {cold: ./cold, collections: [handbok]}}\n",
        encoding="utf-8",
    )
    with pytest.raises(Exception, match='did you mean "handbook"'):
        load(file)
