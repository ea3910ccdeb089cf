"""Backups in a folder: nothing twice, nothing lost, every flipped bit found, and every byte back as it was."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from config import Recipe, load
from server.errors import Conflict, HearthError, InvalidValue, NotFound, ServiceError
from server.policies.backup import packs
from server.policies.backup import snapshot as snapshots
from server.policies.backup.job import Backup
from server.policies.backup.placing import in_place
from server.policies.backup.policy import BackupPolicy
from server.policies.backup.unixfs import LEAF
from server.policies.report import Report

MB = 2**20
KEY = "AGE-SECRET-KEY-12PSYCDU8S98XPELDQFP8T40YFYZ5QKK6364Q3MDW6QR0RVAYZCLS7Z2PUW"

KILLED = """
import os, signal, sys
from pathlib import Path
from config import load
from server.policies.backup.job import Backup

Path.replace = lambda self, target: os.kill(os.getpid(), signal.SIGKILL)
recipe = load(Path(sys.argv[1]))
Backup.declared(recipe, lambda sentence: None).make(recipe)
"""
ROOT = Path(__file__).parents[2]


def noise(size: int, seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe with two models of a few blocks, whose backup has everything but collections."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "one.gguf").write_bytes(noise(3 * MB + 17, 1))
    (tmp_path / "weights" / "two.gguf").write_bytes(noise(LEAF, 2) * 3)
    return written(tmp_path)


def written(folder: Path, more: str = "") -> Path:
    file = folder / "recipe.yaml"
    file.write_text(
        "version: 1\n"
        "server: {data: ./data}\n"
        "models:\n"
        "  one: {engine: llamacpp, source: ./weights/one.gguf}\n"
        "  two: {engine: llamacpp, source: ./weights/two.gguf}\n"
        "  small: {engine: openvino, source: 'made:random'}\n"
        "policies:\n"
        f"  backup: {{to: ./backups, {more}}}\n",
        encoding="utf-8",
    )
    return file


def backup(file: Path) -> Backup:
    return Backup.declared(load(file), lambda sentence: None)


def made(file: Path) -> Report:
    return backup(file).make(load(file))


def restored(file: Path, to: Path, at: str | None = None, what: str | None = None) -> dict[str, bytes]:
    one = backup(file)
    _, files = one.chosen(at, what)
    one.write(files, lambda each: to / each.path)
    return {str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()}


def originals(folder: Path) -> dict[str, bytes]:
    return {
        "models/one/one.gguf": (folder / "weights" / "one.gguf").read_bytes(),
        "models/two/two.gguf": (folder / "weights" / "two.gguf").read_bytes(),
        "recipe/recipe.yaml": (folder / "recipe.yaml").read_bytes(),
    }


@pytest.mark.parametrize("more", ["", f"key: {KEY}"])
def test_what_is_restored_is_what_was_kept(recipe: Path, tmp_path: Path, more: str) -> None:
    file = written(tmp_path, more)
    report = made(file)
    assert report.details[1:] == ("left out: models/small: made:random is installed or made again, and not copied",)
    assert restored(file, tmp_path / "out") == originals(tmp_path)
    assert (tmp_path / "out/models/one/one.gguf").stat().st_mtime_ns == (
        tmp_path / "weights/one.gguf"
    ).stat().st_mtime_ns
    assert backup(file).verify() == (1, [])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "backups").rglob("*") if path.is_file())
    assert (noise(64, 1) in kept) is not bool(more), "encrypted or not"


def test_equal_blocks_are_stored_once_and_unchanged_files_are_not_read(recipe: Path, tmp_path: Path) -> None:
    first = made(recipe).figures
    assert first["bytes"] > 3.7 * MB > first["bytes_stored"] > 3.2 * MB, "two.gguf is one block three times"
    second = made(recipe).figures
    assert second["bytes_read"] == 0 and second["bytes_stored"] < 10_000
    changed = bytearray((tmp_path / "weights" / "one.gguf").read_bytes())
    changed[MB] ^= 1
    (tmp_path / "weights" / "one.gguf").write_bytes(changed)
    third = made(recipe).figures
    assert third["bytes_read"] == len(changed)
    assert third["bytes_stored"] < LEAF + 20_000, "one block and the list of files"


def test_older_snapshots_go_and_only_what_they_alone_need(recipe: Path, tmp_path: Path) -> None:
    file = written(tmp_path, "keep: 2")
    kept = []
    for seed in range(4):
        (tmp_path / "weights" / "one.gguf").write_bytes(noise(MB, seed))
        kept.append(made(file).summary.partition(":")[0])
    assert [each.name for each in backup(file).snapshots()] == kept[2:]
    assert restored(file, tmp_path / "old", at=kept[2])["models/one/one.gguf"] == noise(MB, 2)
    assert restored(file, tmp_path / "new")["models/one/one.gguf"] == noise(MB, 3)
    size = sum(path.stat().st_size for path in (tmp_path / "backups" / "packs").iterdir())
    assert size < 2.7 * MB, "two of one.gguf and one block of two.gguf"
    with pytest.raises(NotFound, match=f"{kept[2]}, {kept[3]}"):
        backup(file).chosen(kept[0], None)


def test_one_flipped_bit_is_found_and_its_file_named(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    weights = (tmp_path / "weights" / "one.gguf").read_bytes()
    packed = (tmp_path / "backups" / "packs").glob("*.car")
    [pack] = [path for path in packed if weights[MB : MB + 64] in path.read_bytes()]
    data = bytearray(pack.read_bytes())
    data[data.index(weights[MB : MB + 64])] ^= 0b100
    pack.write_bytes(data)
    [damage] = backup(recipe).verify()[1]
    assert damage.path == "models/one/one.gguf" and "damaged" in damage.reason
    with pytest.raises(ServiceError, match="damaged"):
        restored(recipe, tmp_path / "out", what="models/one")
    assert not list((tmp_path / "out").rglob("*")) or not (tmp_path / "out/models/one/one.gguf").exists()
    assert restored(recipe, tmp_path / "other", what="models/two") == {
        "models/two/two.gguf": (tmp_path / "weights" / "two.gguf").read_bytes()
    }


def test_a_lost_pack_is_stored_again_by_the_next_run(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    for path in (tmp_path / "backups" / "packs").glob("*.car"):
        path.unlink()
    assert backup(recipe).verify()[1]
    made(recipe)
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)


def test_killed_at_any_moment_it_is_sound_and_the_next_run_works(recipe: Path, tmp_path: Path) -> None:
    written(tmp_path, "keep: 2")
    old = made(recipe).summary.partition(":")[0]
    restored(recipe, tmp_path / "kept")
    made(recipe)  # so that the runs below let go of the first one
    command = [sys.executable, "-m", "tests.policies.killed_backups", str(recipe), old, str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    told = [line for line in done.stdout.splitlines() if line.startswith("killed")]
    assert len(told) > 15, "packs, tables, settling, the list of files, the snapshot that goes and its packs"
    assert [line for line in told if not line.endswith(": nothing lost, nothing damaged")] == []
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)
    made(recipe)
    assert len(backup(recipe).snapshots()) == 2
    whole = {path.stem for path in (tmp_path / "backups" / "packs").glob("*.idx")}
    assert {path.stem for path in (tmp_path / "backups" / "packs").glob("*.car")} == whole, "nothing unfinished stays"


def test_half_a_file_is_none_and_goes(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    (tmp_path / "weights" / "one.gguf").write_bytes(noise(2 * MB, 7))
    command = [sys.executable, "-c", KILLED, str(recipe)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    halves = [path for path in (tmp_path / "backups").rglob(".*")]
    assert len(halves) == 1 and backup(recipe).verify() == (1, [])
    (tmp_path / "backups" / "snapshots" / f".half.json.{os.getpid()}").write_text("{")
    made(recipe)
    assert not list((tmp_path / "backups").rglob(".*"))
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)


def test_places_that_cannot_be_used_are_told_and_nothing_changes(recipe: Path, tmp_path: Path) -> None:
    loaded = load(recipe)
    (tmp_path / "backups").write_text("a file, where the recipe found nothing yet")
    with pytest.raises(HearthError, match="backups"):
        Backup.declared(loaded, lambda sentence: None).make(loaded)
    (tmp_path / "backups").unlink()
    (tmp_path / "weights" / "two.gguf").unlink()
    with pytest.raises(ServiceError, match=r"models/two .*two\.gguf"):
        Backup.declared(loaded, lambda sentence: None).make(loaded)
    (tmp_path / "weights" / "two.gguf").write_bytes(b"x")
    assert backup(recipe).snapshots() == []
    made(recipe)
    assert restored(recipe, tmp_path / "out") == originals(tmp_path)


def test_another_key_or_none_is_told(recipe: Path, tmp_path: Path) -> None:
    made(written(tmp_path, f"key: {KEY}"))
    with pytest.raises(NotFound, match="no snapshot"):
        backup(written(tmp_path)).chosen(None, None)
    from pyrage import x25519

    other = written(tmp_path, f"key: {x25519.Identity.generate()}")
    with pytest.raises(ServiceError, match="cannot be decrypted"):
        backup(other).snapshots()


def test_one_run_at_a_time_changes_a_place(recipe: Path) -> None:
    one = backup(recipe)
    with one._place.held(), pytest.raises(Conflict, match="Another run"):
        made(recipe)
    made(recipe)


def test_a_file_written_to_while_it_is_read_is_no_snapshot(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = recipe.parent / "weights" / "one.gguf"
    told = []

    def tell(sentence: str) -> None:
        if not told and "one" in sentence:
            told.append(sentence)
            with weights.open("r+b") as file:
                file.write(b"changed")
            os.utime(weights, ns=(1, 1))

    with pytest.raises(ServiceError, match="changed while it was read"):
        Backup.declared(load(recipe), tell).make(load(recipe))
    assert told and backup(recipe).snapshots() == []


def test_times_choose_snapshots(recipe: Path) -> None:
    names = [made(recipe).summary.partition(":")[0] for _ in range(2)]
    one = backup(recipe)
    assert one.chosen("2999-01-01", None)[0].name == names[1]
    assert one.chosen(names[0], None)[0].name == names[0]
    with pytest.raises(NotFound, match="1999-01-01 or before"):
        one.chosen("1999-01-01", None)
    with pytest.raises(NotFound, match="neither a snapshot nor a time"):
        one.chosen("yesterday", None)
    with pytest.raises(InvalidValue, match=r"models/one, models/two, recipe/recipe\.yaml"):
        one.chosen(None, "models/three")


def test_in_place_writes_back_what_is_missing_or_other(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    before = originals(tmp_path)
    (tmp_path / "weights" / "one.gguf").unlink()
    # Without the recipe, which is not sound while its weights are away.
    one = Backup(tmp_path / "backups", None, tmp_path / "cache", lambda sentence: None)
    snapshot, files = one.chosen(None, "models")
    told = in_place(one, snapshot, files, tmp_path / "data")
    assert told == ["1 files written where they were, 1 were there already"]
    assert originals(tmp_path) == before


def test_memory_does_not_grow_with_what_is_kept(recipe: Path, tmp_path: Path) -> None:
    """The process's own peak, with 160 MB of weights and packs of 16 MiB."""
    with (tmp_path / "weights" / "one.gguf").open("wb") as file:
        for seed in range(10):
            file.write(noise(16 * MB, seed))
    # Not getrusage's: a process inherits the peak of the one that started it.
    told = "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    script = (
        "import sys\nfrom pathlib import Path\nfrom config import load\n"
        "from server.policies.backup.job import Backup\n"
        "recipe = load(Path(sys.argv[1]))\n"
        f"Backup.declared(recipe, lambda sentence: None).make(recipe)\n{told}\n"
    )
    command = [sys.executable, "-c", script, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 200_000
    assert packs.PACK <= 16 * MB


@pytest.mark.anyio
async def test_a_run_that_is_cancelled_ends_its_process(recipe: Path, tmp_path: Path) -> None:
    loaded: Recipe = load(recipe)
    assert loaded.policies.backup is not None
    policy = BackupPolicy(loaded, loaded.policies.backup)
    run = asyncio.create_task(policy.run(lambda sentence: None))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    report = await policy.run(lambda sentence: None)
    assert report.figures["files"] == 3
    assert snapshots.names(backup(recipe)._place, backup(recipe)._seal)
