"""Backups that others wrote, beside other processes, after a change of key, or damaged where no file is."""

import hashlib
import shutil
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from config import load
from server.backups import at_place, of_recipe, verify
from server.errors import InvalidValue, ServiceError
from server.policies.backup import restoring
from server.policies.backup import snapshot as snapshots
from server.policies.backup.packs import Packs
from server.policies.backup.placing import in_place
from server.policies.backup.snapshot import File
from tests.policies.test_backup import KEY, backup, made, originals, recipe, restored, written

__all__ = ["recipe"]


def test_what_was_kept_before_a_key_was_declared_stays(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    made(written(tmp_path, f"key: {KEY}"))
    assert backup(written(tmp_path)).verify() == (1, [])
    made(written(tmp_path))
    assert backup(written(tmp_path, f"key: {KEY}")).verify() == (1, [])


@pytest.mark.parametrize("moment", ["_put", "_written"])
def test_a_look_at_the_place_does_not_disturb_the_run(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The index is shared: whoever looks knows a pack before the run that wrote it does, or has not seen it yet."""
    real = getattr(Packs, moment)

    def beside(packs: Packs, *args: object) -> object:
        result = real(packs, *args)
        if packs.written or moment == "_put":
            backup(recipe).verify()
        return result

    monkeypatch.setattr(Packs, moment, beside)
    made(recipe)
    monkeypatch.undo()
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)


def test_a_pack_that_comes_during_the_look_is_not_forgotten(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = backup(recipe)
    real = one._place.names

    def late(prefix: str) -> dict[str, int]:
        there = real(prefix)
        if not snapshots.names(backup(recipe)._place, one._seal):
            monkeypatch.undo()
            made(recipe)
        return there

    monkeypatch.setattr(one._place, "names", late)
    one.verify()
    assert backup(recipe).verify() == (1, [])
    assert made(recipe).figures["bytes_read"] == 0, "everything is known still"


@pytest.mark.parametrize("at", [0, 60], ids=["no table any more", "another block"])
def test_a_flipped_bit_of_a_table_is_found_and_the_pack_says_it_too(recipe: Path, tmp_path: Path, at: int) -> None:
    made(recipe)
    table = min((tmp_path / "backups" / "packs").glob("*.idx"))
    data = bytearray(table.read_bytes())
    data[at] ^= 0x40
    table.write_bytes(data)
    [damage] = backup(recipe).verify()[1]
    assert damage.path == f"packs/{table.name}" and "damaged" in damage.reason
    if at == 0:
        shutil.rmtree(tmp_path / "data" / "cache")
        assert restored(recipe, tmp_path / "out") == originals(tmp_path)
    assert made(recipe).details[1] == f"packs/{table.name} was damaged and is written anew"
    assert backup(recipe).verify() == (2, []) and len(made(recipe).details) == 2


def test_an_index_that_is_damaged_is_made_again(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    [index] = (tmp_path / "data" / "cache").glob("backup-*.db")
    index.write_bytes(b"power was lost " * 1000)
    assert backup(recipe).verify() == (1, [])


@pytest.mark.parametrize("path", ["../out.txt", "/etc/out.txt", "models/../../out.txt", "models//x", ""])
def test_a_list_that_leads_out_of_the_folder_is_refused(recipe: Path, tmp_path: Path, path: str) -> None:
    made(recipe)
    [file] = (tmp_path / "backups" / "snapshots").glob("*.json")
    told = msgspec.json.decode(file.read_bytes())
    told["files"][0]["path"] = path
    file.write_bytes(msgspec.json.encode(told))
    with pytest.raises(ServiceError, match="no path within a folder"):
        restored(recipe, tmp_path / "out")
    assert not (tmp_path / "out.txt").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("where", "value", "reason"),
    [("packs", ["../x"], "no name of a pack"), ("cid", "bafy", "CID"), ("packs", [], "does not name")],
)
def test_a_list_that_leads_to_nothing_is_refused(
    recipe: Path, tmp_path: Path, where: str, value: object, reason: str
) -> None:
    made(recipe)
    [file] = (tmp_path / "backups" / "snapshots").glob("*.json")
    told = msgspec.json.decode(file.read_bytes())
    told[where] = value
    if value == ["../x"]:
        for each in told["files"]:
            each["packs"] = [0]
    file.write_bytes(msgspec.json.encode(told))
    with pytest.raises(ServiceError, match=reason):
        backup(recipe).verify()


def listed(mode: int, data: bytes) -> File:
    return File("models/x/y", "", len(data), mode, 10**18, hashlib.sha256(data).hexdigest(), "", 0, ())


def test_what_is_written_back_never_runs_as_its_owner_and_follows_no_link(tmp_path: Path) -> None:
    target = tmp_path / "y"
    restoring.write(listed(0o4755, b"#!"), target, [b"#!"], lambda path, size: None)
    assert target.stat().st_mode & 0o7777 == 0o755
    (tmp_path / ".y.restoring").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServiceError, match="cannot be written"):
        restoring.write(listed(0o644, b"#!"), target, [b"#!"], lambda path, size: None)
    assert not (tmp_path / "elsewhere").exists()


def test_a_gateway_that_does_not_stop_is_left(tmp_path: Path) -> None:
    def endless():  # type: ignore[no-untyped-def]
        while True:
            yield b"x" * 1000

    file = listed(0o644, b"x" * 1500)
    with pytest.raises(ServiceError, match="longer"):
        restoring.write(file, tmp_path / "y", restoring.checked(file, endless()), lambda path, size: None)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ServiceError, match="models cannot be made"):
        restoring.write(listed(0o644, b""), tmp_path / "models" / "y", [], lambda path, size: None)


def test_what_a_killed_run_copied_goes_with_the_next(recipe: Path, tmp_path: Path) -> None:
    left = tmp_path / "data" / "cache" / "copies-abc"
    left.mkdir(parents=True)
    (left / "state.db").write_text("stored conversations")
    made(recipe)
    assert not left.exists()
    assert (tmp_path / "backups").stat().st_mode & 0o077 == 0, "what others may not read is not shown to them there"


def test_a_part_of_a_collection_is_not_put_in_the_place_of_the_whole(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "knowledge" / "notes"
    folder.mkdir(parents=True)
    for name in ("record.json", "more.json"):
        (folder / name).write_text("{}")
    made(recipe)
    one = backup(recipe)
    snapshot, files = one.chosen(None, "knowledge/notes/record.json")
    with pytest.raises(InvalidValue, match="--what knowledge/notes"):
        in_place(one, snapshot, files, Path(snapshot.data))
    assert sorted(path.name for path in folder.iterdir()) == ["more.json", "record.json"]


def test_a_place_that_is_not_there_is_told_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"no folder .*nothing-here"):
        at_place(str(tmp_path / "nothing-here"), None, None, tmp_path / "cache")(lambda sentence: None)
    assert not (tmp_path / "nothing-here").exists()


def test_where_no_snapshot_is_nothing_is_sound(recipe: Path) -> None:
    out, err = Console(quiet=True), Console(file=StringIO(), width=1000)
    assert verify(of_recipe(load(recipe)), out, err) == 1
    assert "nothing to verify" in str(getattr(err.file, "getvalue", str)())
    made(recipe)
    assert verify(of_recipe(load(recipe)), out, err) == 0
