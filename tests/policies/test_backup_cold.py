"""Documents in cold storage are backed up, read from there once, and come back into the table with a restore."""

import asyncio
import contextlib
import shutil
import sqlite3
from io import StringIO
from pathlib import Path

import pytest
from pydantic import SecretStr
from rich.console import Console

from config import load
from config.bucket import Bucket
from server.backups import of_recipe, restore
from server.policies.backup import cold_documents
from server.policies.backup.job import Backup
from server.policies.backup.placing import in_place
from server.policies.report import Report
from tests.policies.test_backup import backup
from tests.policies.tiered import Tiered, document, shown, tiered
from tests.s3 import ACCESS_KEY, SECRET_KEY, s3_server

pytestmark = pytest.mark.anyio

QUERIES = ("subject3", "subject4 part1", "page word")
BOTH = ("warm", "cold")


def written(folder: Path, place: str = "./cold", more: str = "") -> Path:
    file = folder / "recipe.yaml"
    file.write_text(
        "version: 1\n"
        "server: {data: .}\n"
        "models: {echo: {engine: remote, url: 'http://127.0.0.1:9/v1', task: embed}}\n"
        "knowledge: {handbook: {embed: echo}}\n"
        f"policies: {{tiering: {{cold: {place}}}, backup: {{to: ./backups, what: [knowledge]{more}}}}}\n",
        encoding="utf-8",
    )
    return file


async def made(recipe: Path) -> Report:
    loaded = load(recipe)
    return await asyncio.to_thread(Backup.declared(loaded, lambda sentence: None).make, loaded)


def kept_cold(recipe: Path) -> set[str]:
    """Files of cold documents in the last snapshot."""
    _, files = backup(recipe).chosen(None, None)
    return {file.path for file in files if "/cold/" in file.path}


async def answers(each: Tiered) -> list[list[tuple[str, str, float]]]:
    return [shown(await each.search(query, BOTH, k=99, mode="vector")) for query in QUERIES]


async def filled(each: Tiered) -> list[list[tuple[str, str, float]]]:
    """All but d0 are cold; what searches find."""
    await each.collection.push([document(n) for n in range(6)], [])
    await each.run()
    each.now += 40 * 86_400
    await each.used("d0")
    await each.run()
    assert await each.local() == {"d0"}
    return await answers(each)


async def restored(recipe: Path, what: str | None = None) -> list[str]:
    one = backup(recipe)
    snapshot, files = one.chosen(None, what)
    return await asyncio.to_thread(in_place, one, snapshot, files, recipe.parent)


async def test_cold_documents_are_found_after_cold_storage_is_lost(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    async with tiered(tmp_path) as each:
        before = await filled(each)
        report = await made(recipe)
        assert [each for each in report.details if "left out" in each] == []
        await each.collection.push([], ["d0"])
    shutil.rmtree(tmp_path / "cold")
    assert backup(recipe).verify() == (1, [])
    assert "5 cold documents of handbook lie here again" in await restored(recipe)
    async with tiered(tmp_path) as each:
        assert await each.local() == {f"d{n}" for n in range(6)} and await each.cold() == set()
        assert await answers(each) == before
        each.now += 80 * 86_400
        await each.used("d1")
        await each.run()
        assert await each.local() == {"d1"}, "they move like any others"
        assert await answers(each) == before
    assert not await asyncio.to_thread((tmp_path / "knowledge" / "handbook" / "cold").exists)


async def test_what_did_not_change_is_not_read_from_cold_storage_again(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    async with tiered(tmp_path) as each:
        await filled(each)
        await made(recipe)
        first = kept_cold(recipe)
        (tmp_path / "cold").rename(tmp_path / "away")
        second = await made(recipe)
        assert [told for told in second.details if "left out" in told] == []
        assert kept_cold(recipe) == first != set()
        (tmp_path / "away").rename(tmp_path / "cold")
        await each.collection.push([document(3, "anew")], [])
        third = await made(recipe)
        assert [told for told in third.details if "left out" in told] == []
    await restored(recipe)
    async with tiered(tmp_path) as each:
        hits = (await each.search("subject3", BOTH, k=99, mode="vector")).hits
        assert len({hit.id for hit in hits}) == len(hits) and len({hit.document_id for hit in hits}) == 6
        assert all("anew" in hit.text for hit in hits if hit.document_id == "d3" and "word by word" in hit.text)


async def test_cold_storage_that_cannot_be_read_keeps_nothing_else_out(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    async with tiered(tmp_path) as each:
        await filled(each)
        (tmp_path / "cold").rename(tmp_path / "away")
        report = await made(recipe)
        [told] = [told for told in report.details if "left out" in told]
        assert "knowledge/handbook/cold: 5 documents in cold storage at" in told and "lacks them" in told
        (tmp_path / "cold" / "handbook").rmdir()
        (tmp_path / "cold").rmdir()
        (tmp_path / "away").rename(tmp_path / "cold")
        again = await made(recipe)
        assert [told for told in again.details if "left out" in told] == []


async def test_cold_documents_stay_there_where_the_recipe_says_so(tmp_path: Path) -> None:
    recipe = written(tmp_path, more=", cold: leave")
    async with tiered(tmp_path) as each:
        before = await filled(each)
        [told] = [told for told in (await made(recipe)).details if "left out" in told]
        assert "knowledge/handbook: 5 documents are in cold storage" in told
    await restored(recipe)
    async with tiered(tmp_path) as each:
        assert await each.cold() == {f"d{n}" for n in range(1, 6)} and await answers(each) == before


async def test_a_collection_restored_alone_has_its_cold_documents(tmp_path: Path) -> None:
    """From a bucket, which still has them: their rows there count no more, and go with the next run."""
    with s3_server() as server:
        url = f"{server.bucket('kb-cold')}/handbook"
        place = Bucket(url=url, endpoint=server.endpoint, access_key=ACCESS_KEY, secret_key=SecretStr(SECRET_KEY))
        recipe = written(tmp_path, server.spec(url))
        async with tiered(tmp_path, place) as each:
            before = await filled(each)
            await made(recipe)
        await restored(recipe, "knowledge/handbook")
        async with tiered(tmp_path, place) as each:
            assert await each.local() == {f"d{n}" for n in range(6)} and await each.cold() == set()
            assert await answers(each) == before
            each.now += 41 * 86_400
            await each.used(*(f"d{n}" for n in range(6)))
            await each.run()
            table = await each.tier.table(each.collection._serving.store.shape)  # type: ignore[union-attr]
            assert await table.documents() == {}
            await table.close()


async def test_a_folder_restored_to_is_a_data_directory_with_them(tmp_path: Path) -> None:
    recipe = written(tmp_path)
    async with tiered(tmp_path) as each:
        before = await filled(each)
        await made(recipe)
    out = Console(file=StringIO(), width=200)
    to = tmp_path / "restored"
    listen = load(recipe).server.listen
    given = (of_recipe(load(recipe)), listen, None, None, to, out, Console(quiet=True))
    assert await asyncio.to_thread(restore, *given) == 0
    assert "5 cold documents of handbook lie in its table again" in out.file.getvalue()  # type: ignore[attr-defined]
    async with tiered(to) as each:
        assert await each.local() == {f"d{n}" for n in range(6)} and await answers(each) == before


async def test_no_document_moves_while_a_backup_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that came back between the looks at both places would be in neither."""
    recipe = written(tmp_path)
    async with tiered(tmp_path) as each:
        await filled(each)
        each.now += 1
        await each.used("d2")
        moves: list[asyncio.Future[Report]] = []
        loop = asyncio.get_running_loop()
        stay = cold_documents.ColdDocuments.stay

        def moving(one: cold_documents.ColdDocuments) -> None:
            stay(one)
            moves.append(asyncio.wrap_future(asyncio.run_coroutine_threadsafe(each.run(), loop), loop=loop))

        monkeypatch.setattr(cold_documents.ColdDocuments, "stay", moving)
        await made(recipe)
        assert (await moves[0]).figures["documents_back"] == 1 and await each.local() == {"d0", "d2"}
    with contextlib.closing(sqlite3.connect(tmp_path / "state.db")) as database:
        database.execute("DELETE FROM tier_cold")
        database.commit()
    await restored(recipe)
    async with tiered(tmp_path) as each:
        assert await each.local() == {f"d{n}" for n in range(6)}
