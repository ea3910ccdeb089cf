"""Keys in recipes and in keys files, limits, and how changed files are noticed."""

import os
from pathlib import Path

import pytest

from config import RecipeError, all_keys, keys_in, load
from config.key import digest
from config.watch import Watch

HASH = digest("sk-somebody-12345")


def read(folder: Path, server: str, keys: str | None = None) -> list[str]:
    """The names of all keys of a recipe with this server section, and this keys file."""
    if keys is not None:
        (folder / "keys.yaml").write_text(keys, encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"version: 1\nserver:\n{server}", encoding="utf-8")
    return [key.name for key in all_keys(load(recipe, environ={}))]


def faults(folder: Path, server: str, keys: str | None = None) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        read(folder, server, keys)
    return [str(fault).removeprefix(f"{folder}/") for fault in raised.value.faults]


FILE = "  keys_file: ./keys.yaml\n"


def test_keys_of_the_recipe_and_of_its_file_are_in_force(tmp_path: Path) -> None:
    declared = f"  keys: [{{name: a, secret: sk-a-12345}}]\n{FILE}"
    added = f"keys:\n  - {{name: b, hash: '{HASH}', scopes: [ingest], expires: 2027-01-31, limits: {{queue: 3}}}}\n"
    assert read(tmp_path, declared, added) == ["a", "b"]
    key = keys_in(tmp_path / "keys.yaml")[0]
    assert (key.digest, key.scopes, key.limits.queue) == (HASH, {"ingest"}, 3)
    assert key.expires is not None and key.expires.isoformat() == "2027-01-31T00:00:00+00:00"


def test_a_keys_file_may_be_missing_and_a_key_is_asked_for_all_the_same(tmp_path: Path) -> None:
    assert read(tmp_path, FILE) == []
    assert load(tmp_path / "recipe.yaml", environ={}).server.asks_for_keys


def test_every_fault_of_a_keys_file_is_told_with_its_line(tmp_path: Path) -> None:
    text = (
        "kys: []\nkeys:\n"
        "  - {name: b, secret: sk-b-12345}\n"
        f"  - {{name: b, hash: '{HASH}', scope: [infer]}}\n"
        "  - {name: c, hash: sk-typed-here}\n"
    )
    assert faults(tmp_path, FILE, text) == [
        "keys.yaml:1: kys: a keys file holds keys and nothing else",
        "keys.yaml:3: keys.0: a keys file holds hashes, never secrets",
        'keys.yaml:4: keys.1: unknown key "scope", did you mean "scopes"?',
        "keys.yaml:4: keys.1.name: keys.0 has the same name",
        'keys.yaml:5: keys.2.hash: should be "sha256:" and 64 hexadecimal digits',
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "keys.yaml:1: the keys file is empty; it starts with: keys:"),
        ("- a\n", "keys.yaml:1: a keys file is a mapping; it starts with: keys:"),
        ("keys:\n  - {name: b, secret: sk-b-12345}\n", "keys.yaml:2: keys.0: a keys file holds hashes, never secrets"),
        ("keys: 5\n", "keys.yaml:1: keys: should be a list, not a number"),
    ],
)
def test_a_keys_file_that_is_none(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, FILE, text) == [fault]


@pytest.mark.parametrize("entry", [f"{{name: a, hash: '{HASH}'}}", f"{{name: c, hash: '{digest('sk-a-12345')}'}}"])
def test_a_key_stands_in_the_recipe_or_in_the_file(tmp_path: Path, entry: str) -> None:
    declared = f"  keys: [{{name: a, secret: sk-a-12345}}]\n{FILE}"
    found = faults(tmp_path, declared, f"keys:\n  - {entry}\n")
    assert found == ["keys.yaml:2: keys.0: server.keys has a key of this name or secret"]


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("{name: a}", "server.keys.0: a key has either a secret or a hash"),
        (f"{{name: a, secret: sk-a-12345, hash: '{HASH}'}}", "server.keys.0: a secret needs no hash"),
        ("{name: a, secret: sk-a-12345, expires: soon}", 'server.keys.0.expires: "soon" is not a time such as'),
        ("{name: a, secret: sk-a-12345, limits: {queue: 0}}", "server.keys.0.limits.queue: should be greater than"),
        ("{name: a, secret: sk-a-12345, limits: {tokens: 1}}", 'server.keys.0.limits: unknown key "tokens"'),
    ],
)
def test_a_bad_key(tmp_path: Path, key: str, fault: str) -> None:
    found = faults(tmp_path, f"  keys:\n    - {key}\n")
    assert len(found) == 1 and found[0].startswith(f"recipe.yaml:4: {fault}")


def test_a_secret_and_the_hash_of_it_are_one_key(tmp_path: Path) -> None:
    server = f"  keys:\n    - {{name: a, secret: sk-a-12345}}\n    - {{name: b, hash: '{digest('sk-a-12345')}'}}\n"
    assert faults(tmp_path, server) == ["recipe.yaml:5: server.keys.1.hash: server.keys.0 has the same secret"]


def test_a_recipe_knows_what_it_was_read_from(tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text("sk-a-12345", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("version: 1\nserver: {keys: [{name: a, secret: '${file:key.txt}'}]}\n", encoding="utf-8")
    origin = load(recipe, environ={}, overrides={"server.listen": ":9000"}).origin
    assert origin.secrets == (tmp_path / "key.txt",)
    assert origin.overrides == {"server.listen": ":9000"}


# ---- watching -------------------------------------------------------------------------------------------------------


def test_a_change_is_told_once_and_when_it_holds_still(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("one", encoding="utf-8")
    watch = Watch([file])
    assert not watch.changed([file])
    file.write_text("three", encoding="utf-8")
    assert [watch.changed([file]) for _ in range(3)] == [False, True, False]
    file.write_text("four more", encoding="utf-8")
    assert not watch.changed([file])
    file.write_text("four more and five", encoding="utf-8")
    assert [watch.changed([file]) for _ in range(3)] == [False, True, False]


def test_files_that_come_go_or_are_replaced_are_changes(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    watch = Watch([file])
    file.write_text("one", encoding="utf-8")
    assert [watch.changed([file]) for _ in range(2)] == [False, True]
    other.write_text("two", encoding="utf-8")
    facts = file.stat()
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.replace(file)  # of the same size and time: another file all the same
    assert [watch.changed([file]) for _ in range(2)] == [False, True]
    file.unlink()
    assert [watch.changed([file]) for _ in range(2)] == [False, True]


def test_a_link_that_is_turned_is_a_change(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(name, encoding="utf-8")
    link = tmp_path / "now"
    link.symlink_to("old")
    watch = Watch([link / "key"])
    link.unlink()
    link.symlink_to("new")
    assert [watch.changed([link / "key"]) for _ in range(2)] == [False, True]
