"""Uploaded files on disk: what a crash or an expiry leaves is cleared away, and equal bytes lie there once."""

from pathlib import Path

import pytest

from server.errors import NotFound, ServiceError
from server.files import Files, StoredFile
from server.state import State

pytestmark = pytest.mark.anyio


async def put(files: Files, raw: bytes, seconds: int | None = None) -> StoredFile:
    async with files.incoming() as incoming:
        await incoming.write(raw)
        return await files.keep(incoming, "a.txt", "assistants", seconds)


def on_disk(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.glob("??/*"))


async def test_large_pieces_and_none_at_all_are_kept_as_they_came(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, tmp_path / "files")
        raw = bytes(range(256)) * 20_000
        assert files.path(await put(files, raw)).read_bytes() == raw
        empty = await put(files, b"")
        assert (empty.bytes, files.path(empty).read_bytes()) == (0, b"")


async def test_what_a_crash_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, folder)
        kept = await put(files, b"kept")
        (folder / "incoming" / "half").write_bytes(b"half")
        (folder / "ab").mkdir()
        (folder / "ab" / ("ab" + "0" * 62)).write_bytes(b"renamed, and nothing was written of it")
    async with State.open(tmp_path / "state.db") as state:
        again = await Files.open(state, folder)
        assert on_disk(folder) == [b"kept"]
        assert list((folder / "incoming").iterdir()) == []
        assert await again.every() == [kept]


async def test_an_upload_that_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, tmp_path / "files")
        with pytest.raises(ValueError, match="cut off"):
            async with files.incoming() as incoming:
                await incoming.write(b"x" * 3_000_000)
                raise ValueError("cut off")
        assert list((tmp_path / "files" / "incoming").iterdir()) == []
        assert await files.every() == []


async def test_an_expired_file_is_gone_at_once_and_its_bytes_with_the_next_upload(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, tmp_path / "files")
        brief = await put(files, b"brief", seconds=0)
        with pytest.raises(NotFound):
            await files.find(brief.id)
        assert await files.every() == []
        lasting = await put(files, b"lasting", seconds=3600)
        assert on_disk(tmp_path / "files") == [b"lasting"]
        assert await files.find(lasting.id) == lasting


async def test_equal_bytes_lie_on_disk_once(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, tmp_path / "files")
        one, two = await put(files, b"same"), await put(files, b"same")
        assert on_disk(tmp_path / "files") == [b"same"]
        await files.delete(one.id)
        assert files.path(two).read_bytes() == b"same"
        await files.delete(two.id)
        assert on_disk(tmp_path / "files") == []


async def test_a_disk_that_takes_nothing_is_told_of(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        files = await Files.open(state, tmp_path / "files")
        (tmp_path / "files" / "incoming").rmdir()
        with pytest.raises(ServiceError, match="does not take files: No such file or directory"):
            await put(files, b"x")
