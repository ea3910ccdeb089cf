"""The rooms of memory that a backup reads into and writes from: used again and again, and never lost or mixed up."""

import hashlib
import mmap
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from server import place as place_room
from server.place import Place
from server.policies.backup import car
from server.policies.backup import cid as cids
from server.policies.backup.filling import ROOM, Abandoned, Filling, rooms
from server.policies.backup.segments import SEGMENT, Reader
from tests.policies.test_backup import MB, backup, made, noise, originals, recipe, restored

__all__ = ["recipe"]

SMALL_FILES = """
import resource, sys
from pathlib import Path
from config import load
from server.policies.backup.job import Backup
recipe = load(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_500_000, 2_500_000))
Backup.declared(recipe, lambda sentence: None).make(recipe)
"""


@pytest.mark.parametrize("size", [0, 1, SEGMENT - 1, SEGMENT, 3 * SEGMENT, 9 * SEGMENT + 5])
def test_segments_are_the_file_and_the_sum_is_its_own(tmp_path: Path, size: int) -> None:
    data = noise(size, size)
    (tmp_path / "file").write_bytes(data)
    reader, whole = Reader(), hashlib.sha256()
    with closing(reader.segments(tmp_path / "file", whole)) as segments:
        found = [bytes(each) for each in segments]
    assert b"".join(found) == data and whole.digest() == hashlib.sha256(data).digest()
    assert [len(each) for each in found[:-1]] == [SEGMENT] * (size // SEGMENT) and len(found[-1]) < SEGMENT
    reader.close()


def test_a_reader_goes_on_after_a_file_that_was_left_or_is_none(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(noise(20 * SEGMENT, 1))
    (tmp_path / "short").write_bytes(b"short")
    reader = Reader()
    free = reader._free.qsize()
    for _ in range(3):
        with closing(reader.segments(tmp_path / "long", hashlib.sha256())) as segments:
            next(segments)
        with pytest.raises(FileNotFoundError):
            list(reader.segments(tmp_path / "none", hashlib.sha256()))
        with pytest.raises(IsADirectoryError):
            list(reader.segments(tmp_path, hashlib.sha256()))
    assert [bytes(each) for each in reader.segments(tmp_path / "short", hashlib.sha256())] == [b"short"]
    assert reader._free.qsize() == free
    reader.close()


def blocks() -> list[tuple[cids.Cid, bytes]]:
    sizes = (100, ROOM - 300, 0, 2 * ROOM, ROOM + 7, 5)
    return [(cids.of(cids.RAW, data), data) for data in (noise(size, size) for size in sizes)]


def test_a_pack_is_laid_over_as_many_rooms_as_it_takes() -> None:
    free = rooms()
    count = free.qsize()
    pack = Filling(free)
    laid = bytearray()
    pieces = pack.pieces()
    for cid, data in blocks():
        pack.add(cid, data)
        while not pack._full.empty():
            laid += next(pieces)
    pack.close("x")
    for piece in pieces:
        laid += piece
    view = memoryview(bytes(laid))
    assert len(view) == pack.size and free.qsize() == count
    assert [(cid, bytes(block)) for cid, _, block in car.blocks(view)] == blocks()
    assert [(cid, bytes(view[begin : begin + size])) for cid, begin, size in pack.blocks] == blocks()


def test_what_is_abandoned_leaves_nothing(tmp_path: Path) -> None:
    free = rooms()
    count = free.qsize()
    pack = Filling(free)
    pack.add(cids.of(cids.RAW, b"x"), b"x" * ROOM)
    pack.close(None)
    with pytest.raises(Abandoned), closing(pack.pieces()) as pieces:
        Place(tmp_path).gather("packs", pieces, lambda: "never")
    pack.let_go()
    assert list((tmp_path / "packs").iterdir()) == [] and free.qsize() == count


@pytest.mark.parametrize("shift", [0, 1], ids=["to the disk", "by way of the system's memory"])
def test_pieces_are_written_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    room = memoryview(mmap.mmap(-1, ROOM))[shift:]
    data = noise(2 * len(room) + 12_345, 1)
    told: SimpleQueue[tuple[int, int]] = SimpleQueue()
    real = place_room._to_disk

    def to_disk(file: int, piece: Any) -> int:
        done = real(file, piece)
        told.put((done, len(piece)))
        return done

    monkeypatch.setattr(place_room, "_to_disk", to_disk)

    def pieces() -> Any:
        for at in range(0, len(data), len(room)):
            part = data[at : at + len(room)]
            room[: len(part)] = part
            yield room[: len(part)]

    Place(tmp_path).gather("packs", pieces(), lambda: "x.car")
    assert (tmp_path / "packs" / "x.car").read_bytes() == data
    direct = [told.get() for _ in range(told.qsize())]
    assert shift == 0 or all(done == 0 for done, _ in direct)
    assert [size for _, size in direct] == [len(room), len(room), 12_345]


def test_a_disk_that_takes_no_more_is_told_and_the_next_run_works(recipe: Path, tmp_path: Path) -> None:
    """By a limit on files, which the system refuses to write past in the middle of a pack."""
    made(recipe)
    before = originals(tmp_path)
    (tmp_path / "weights" / "two.gguf").write_bytes(noise(40 * MB, 3))
    command = [sys.executable, "-c", SMALL_FILES, str(recipe)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "ServiceError" in ended.stderr and "File too large" in ended.stderr
    one = backup(recipe)
    assert len(one.snapshots()) == 1 and one.verify()[1] == []
    assert restored(recipe, tmp_path / "old") == before
    made(recipe)
    assert restored(recipe, tmp_path / "new") == originals(tmp_path)
    assert not [path for path in (tmp_path / "backups").rglob(".*")]
