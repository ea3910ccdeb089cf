"""`hearth keys`: what it keeps, and what it refuses."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from config import keys_in
from config.key import digest
from server.__main__ import main

RECIPE = "version: 1\nserver:\n  keys: [{name: own, secret: sk-own-12345}]\n  keys_file: ./keys.yaml\n"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def keys(recipe: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", "--recipe", str(recipe), *arguments])


def test_a_key_is_printed_once_and_kept_as_its_hash(recipe: Path) -> None:
    limits = ("--requests-per-minute", "5", "--tokens-per-minute", "1000")
    done = keys(recipe, "add", "joe", "--scopes", "infer, ingest", "--expires", "2099-01-31", *limits)
    assert done.exit_code == 0, done.output
    (kept,) = keys_in(recipe.with_name("keys.yaml"))
    assert kept.hash == digest(done.stdout.strip())
    assert (kept.name, kept.scopes) == ("joe", {"infer", "ingest"})
    assert (kept.limits.requests_per_minute, kept.limits.tokens_per_minute) == (5, 1000)
    assert kept.expires is not None and kept.expires.isoformat() == "2099-01-31T00:00:00+00:00"
    listed = keys(recipe, "list").stdout
    assert "joe" in listed and "own" in listed and kept.hash not in listed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "own"], "There is a key of the name own already."),
        (["add", "bad name"], 'name: "bad name" is not a name'),
        (["add", "joe", "--scopes", "infr"], "scopes.0: "),
        (["add", "joe", "--expires", "tomorrow"], 'expires: "tomorrow" is not a time such as 2027-01-31T00:00:00Z'),
        (["remove", "own"], "The key own stands in the recipe itself"),
        (["remove", "joe"], "The key joe is not in the file"),
    ],
)
def test_what_is_refused_changes_nothing(recipe: Path, arguments: list[str], told: str) -> None:
    done = keys(recipe, *arguments)
    assert done.exit_code == 1
    assert told in done.stderr and done.stdout == ""
    assert not recipe.with_name("keys.yaml").exists()


def test_without_a_keys_file_it_says_how_to_declare_one(recipe: Path) -> None:
    recipe.write_text("version: 1\n", encoding="utf-8")
    done = keys(recipe, "add", "joe")
    assert done.exit_code == 1 and "keys_file: ./keys.yaml" in done.stderr


def test_a_broken_keys_file_is_not_written_over(recipe: Path) -> None:
    kept = recipe.with_name("keys.yaml")
    kept.write_text("keys: [\n", encoding="utf-8")
    done = keys(recipe, "add", "joe")
    assert done.exit_code == 1 and "keys.yaml:2: not valid YAML" in done.stderr
    assert kept.read_text(encoding="utf-8") == "keys: [\n"


def test_keys_made_at_the_same_time_are_all_kept(recipe: Path) -> None:
    command = [sys.executable, "-m", "server", "keys", "--recipe", str(recipe), "add"]
    made = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in ("a", "b", "c")]
    assert [process.wait(60) for process in made] == [0, 0, 0]
    assert sorted(key.name for key in keys_in(recipe.with_name("keys.yaml"))) == ["a", "b", "c"]
    assert [file.name for file in recipe.parent.iterdir() if file.name.startswith(".")] == []
