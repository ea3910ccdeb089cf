"""Files that are watched: what changes, comes, moves and goes is searchable by itself."""
# ruff: noqa: ASYNC110, ASYNC240  (it polls what another task does, and changes small local files)

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from server.knowledge import Collection, Current
from server.knowledge.sources.watched import _is_closed
from server.state import State
from tests.knowledge.conftest import Make

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def kept(make: Make, folder: Path, glob: str = "**/*.md") -> AsyncIterator[tuple[Collection, Current]]:
    async with State.open(folder / "state.db") as state, make(glob=glob) as collection:
        await collection.sync()
        current = Current(collection, state, folder, lambda _: None)
        task = asyncio.create_task(current.run())
        try:
            await until(lambda: current.sources[0].state == "following")
            yield collection, current
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def until(done: object) -> None:
    async with asyncio.timeout(30):
        while not (await found if asyncio.iscoroutine(found := done()) else found):  # type: ignore[operator]
            await asyncio.sleep(0.02)  # polling what another task does


async def uris(collection: Collection) -> dict[str, str]:
    return {each.uri: each.title for each in await collection.documents()}


async def until_uris(collection: Collection, wanted: dict[str, str]) -> None:
    async def done() -> bool:
        return await uris(collection) == wanted

    try:
        await until(done)
    except TimeoutError:
        assert await uris(collection) == wanted
        raise


async def test_changes_new_files_renames_and_deletions_are_taken_in(make: Make, docs: Path, tmp_path: Path) -> None:
    (docs / "a.md").write_text("# Apples\n\nApples are red.")
    async with kept(make, tmp_path) as (collection, _):
        (docs / "a.md").write_text("# Green\n\nApples are green.")
        await until_uris(collection, {"a.md": "Green"})
        (docs / "deep" / "er").mkdir(parents=True)
        (docs / "deep" / "er" / "b.md").write_text("# Bears\n\nBears sleep.")
        (docs / "c.txt").write_text("Not named by the pattern.")
        await until_uris(collection, {"a.md": "Green", "deep/er/b.md": "Bears"})
        (docs / "a.md").rename(docs / "z.md")
        await until_uris(collection, {"z.md": "Green", "deep/er/b.md": "Bears"})
        (docs / "deep").rename(docs / "moved")
        await until_uris(collection, {"z.md": "Green", "moved/er/b.md": "Bears"})
        shutil.rmtree(docs / "moved")
        await until_uris(collection, {"z.md": "Green"})
        (docs / "z.md").unlink()
        await until_uris(collection, {})


async def test_only_what_changed_is_embedded(make: Make, docs: Path, tmp_path: Path) -> None:
    for n in range(20):
        (docs / f"{n}.md").write_text(f"# Page {n}\n\nText.")
    async with kept(make, tmp_path) as (collection, _):
        embedder = collection._embedder
        before = embedder.inputs  # type: ignore[attr-defined]
        (docs / "7.md").write_text("# Seven\n\nOther text.")

        async def taken() -> bool:
            return (await uris(collection))["7.md"] == "Seven"

        await until(taken)
        assert embedder.inputs - before == 1  # type: ignore[attr-defined]


async def test_a_file_that_is_written_in_pieces_is_not_taken_half(make: Make, docs: Path, tmp_path: Path) -> None:
    async with kept(make, tmp_path) as (collection, _):
        seen: set[int] = set()

        async def watch() -> None:
            while True:
                seen.update([each.bytes for each in await collection.documents()])
                await asyncio.sleep(0)

        task = asyncio.create_task(watch())
        with (docs / "a.md").open("w") as file:
            for n in range(200):
                file.write(f"Line {n}.\n\n")
                file.flush()
                await asyncio.sleep(0.001)

        async def whole() -> bool:
            held = await collection.documents()
            found = await collection.document(held[0].id) if held else None
            return found is not None and "Line 199." in found.document.text

        await until(whole)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert len(seen) == 1


async def test_a_file_that_somebody_holds_open_is_taken_once_it_is_closed(
    make: Make, docs: Path, tmp_path: Path
) -> None:
    async with kept(make, tmp_path) as (collection, _):
        with (docs / "a.md").open("w") as file:
            file.write("# Half\n\nThe first")
            file.flush()
            assert not _is_closed(docs / "a.md")
            file.write(" half and the second.")
        assert _is_closed(docs / "a.md") or sys.platform != "linux"
        assert not _is_closed(docs) and not _is_closed(docs / "gone.md")
        await until_uris(collection, {"a.md": "Half"})


async def test_links_and_what_they_lead_to_are_taken_as_a_scan_takes_them(
    make: Make, docs: Path, tmp_path: Path
) -> None:
    """What is not a plain file that one source names is left to a scan of everything."""
    (docs / "a.md").write_text("# Apples\n\nApples are red.")
    (docs / "hidden").mkdir()
    (docs / "hidden" / "real.txt").write_text("# Old\n\nOld words.")
    (docs / "link.md").symlink_to(docs / "hidden" / "real.txt")
    async with make() as collection:
        await collection.sync()
        before = await uris(collection)
        (docs / "hidden" / "real.txt").write_text("# New\n\nNew words.")
        (docs / "b.md").write_text("# Bears\n\nBears sleep.")
        report = await collection.sync(changed={docs / "b.md", docs / "hidden" / "real.txt"})
        assert (report.added, report.updated) == (("b.md",), ("hidden/real.txt",))
        (docs / "link.md").unlink()
        assert not (await collection.sync(changed={docs / "link.md"})).deleted
        (docs / "a.md").unlink()
        assert (await collection.sync(changed={docs / "a.md"})).deleted == ("a.md",)
        (docs / "b.md").write_text("# Bees\n\nBees hum.")
        assert (await collection.sync(changed={docs / "b.md"})).updated == ("b.md",)
        assert set(await uris(collection)) == {*before, "b.md"} - {"a.md"}


async def test_a_folder_that_vanishes_is_told_and_its_documents_are_kept(
    make: Make, docs: Path, tmp_path: Path
) -> None:
    (docs / "a.md").write_text("# Apples\n\nApples are red.")
    async with kept(make, tmp_path) as (collection, current):
        state = current.sources[0]
        docs.rename(tmp_path / "away")
        await until(lambda: state.state == "waiting")
        assert "its documents are kept" in (state.error or "")
        assert await uris(collection) == {"a.md": "Apples"}
        docs.mkdir()  # as a mount point is while nothing is mounted
        await until(lambda: state.state == "following")
        assert await uris(collection) == {"a.md": "Apples"}
        docs.rmdir()
        (tmp_path / "away").rename(docs)
        (docs / "b.md").write_text("# Bears\n\nBears sleep.")
        await until_uris(collection, {"a.md": "Apples", "b.md": "Bears"})
