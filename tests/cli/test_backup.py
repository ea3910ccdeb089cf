"""`hearth backup` and `hearth restore` as they are typed."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from server.__main__ import main
from tests.policies.test_backup import made, originals, recipe

__all__ = ["recipe"]


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_what_is_kept_is_listed_verified_and_restored(recipe: Path, tmp_path: Path) -> None:
    nothing = typed("backup", "-r", recipe, "verify")
    assert nothing.exit_code == 1
    name = made(recipe).summary.partition(":")[0]
    assert name in typed("backup", "-r", recipe, "list").output
    assert typed("backup", "-r", recipe, "verify").exit_code == 0
    assert typed("restore", "-r", recipe, "--to", tmp_path / "out").exit_code == 0
    assert typed("restore", "--from", tmp_path / "backups", "--to", tmp_path / "other").exit_code == 0
    for folder in ("out", "other"):
        there = {path: (tmp_path / folder / path).read_bytes() for path in originals(tmp_path)}
        assert there == originals(tmp_path)


def test_a_foreign_backup_writes_nothing_outside_the_folder(recipe: Path, tmp_path: Path) -> None:
    made(recipe)
    [file] = (tmp_path / "backups" / "snapshots").glob("*.json")
    assert typed("restore", "--from", tmp_path / "backups", "--in-place").exit_code == 2
    told = json.loads(file.read_text(encoding="utf-8"))
    told["files"][0]["path"] = "../escaped"
    file.write_text(json.dumps(told), encoding="utf-8")
    assert typed("restore", "--from", tmp_path / "backups", "--to", tmp_path / "out").exit_code == 1
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["--to", "out", "--in-place"], ["--manifest", __file__, "--to", "out"]])
def test_words_that_contradict_are_a_mistake(recipe: Path, words: list[str]) -> None:
    assert typed("restore", "-r", recipe, *words).exit_code == 2
