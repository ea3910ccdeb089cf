"""The `tools` section: every mistake is named, secrets stay hidden, equal entries are equal."""

from pathlib import Path

import pytest

from config import RecipeError, load
from config.tool import LangchainTool, McpTool, McpUrl, PythonTool, thawed


def faults(folder: Path, entry: str) -> list[str]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"version: 1\ntools:\n  it: {entry}\n", encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load(recipe, environ={})
    return [str(fault).removeprefix(f"{recipe}:3: ") for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{}", "tools.it: one of the keys python, langchain, mcp, retrieve is missing"),
        (
            "{pyton: 'a:b'}",
            'tools.it: one of the keys python, langchain, mcp, retrieve is missing, did you mean "python"?',
        ),
        ("clock", "tools.it: should be a mapping of keys to values"),
        (
            "{python: 'a b'}",
            'tools.it.python: "a b" is not module:function, such as my_tools:clock, or the name of an entry point',
        ),
        ("{langchain: plain}", 'tools.it.langchain: "plain" is not module:name, such as my_tools:clock'),
        ("{langchain: 'a:b', arguments: [1]}", "tools.it.arguments: should be a mapping of keys to values"),
        ("{python: 'a:b', tiemout: 5s}", 'tools.it: unknown key "tiemout", did you mean "timeout"?'),
        ("{python: 'a:b', folder: ./nowhere}", 'tools.it.folder: the folder "./nowhere" does not exist'),
        (
            "{python: 'a:b', env: {a b: c}}",
            'tools.it.env.a b: "a b" is not the name of an environment variable: letters, digits and _',
        ),
        ("{python: 'a:b', env: {A: 5}}", "tools.it.env.A: should be text, not a number; put it in quotes"),
        ("{mcp: uvx}", "tools.it.mcp: should be a list, the program and each argument by itself, or {url: ...}"),
        ("{mcp: []}", "tools.it.mcp: should have at least one item"),
        ("{mcp: [a, 1]}", "tools.it.mcp.1: should be text, not a number; put it in quotes"),
        ("{mcp: {}}", 'tools.it.mcp: the key "url" is missing'),
        ("{mcp: {url: x}}", 'tools.it.mcp.url: "x" is not an http(s) URL such as https://api.example.com/v1'),
        (
            "{mcp: {url: 'http://a'}, env: {A: b}}",
            "tools.it: env: only for a server that Hearth starts, and this one is at a URL",
        ),
        ("{mcp: [a], allow: []}", "tools.it.allow: should have at least one item"),
        ("{retrieve: [docs]}", 'tools.it.retrieve.0: no collection is named "docs"'),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, entry: str, told: str) -> None:
    assert faults(tmp_path, entry) == [told]


def test_a_name_fits_what_models_may_call(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    for name in ("a__b", "a.b", "1a", "a_", "x" * 65):
        recipe.write_text(f"version: 1\ntools:\n  {name}: {{python: 'a:b'}}\n", encoding="utf-8")
        with pytest.raises(RecipeError, match="is not a tool's name"):
            load(recipe)


def test_the_name_of_an_mcp_server_leaves_room_for_its_tools(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    entry = "{mcp: [server]}"
    recipe.write_text(f"version: 1\ntools:\n  {'x' * 53}: {entry}\n  {'y' * 64}: {{python: 'a:b'}}\n", encoding="utf-8")
    load(recipe)
    recipe.write_text(f"version: 1\ntools:\n  {'x' * 54}: {entry}\n", encoding="utf-8")
    with pytest.raises(RecipeError, match="the name of an MCP server has at most 53 characters, this one has 54"):
        load(recipe)


def test_what_a_tool_is_given_stays_hidden_and_places_start_at_the_recipe(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\n"
        "tools:\n"
        "  a: {python: 'm:f', env: {TOKEN: '${env:TOKEN}', ZONE: UTC}}\n"
        "  b: {mcp: {url: 'http://a/mcp/', headers: {Authorization: 'Bearer ${env:TOKEN}'}}}\n"
        "  c: {langchain: 'm:C', arguments: {list: [1, {deep: yes}]}}\n",
        encoding="utf-8",
    )
    read = load(recipe, environ={"TOKEN": "very-secret"})
    a, b, c = read.tools["a"], read.tools["b"], read.tools["c"]
    assert isinstance(a, PythonTool) and isinstance(b, McpTool) and isinstance(c, LangchainTool)
    assert a.folder == tmp_path and a.env["TOKEN"].get_secret_value() == "very-secret"
    assert isinstance(b.mcp, McpUrl) and b.mcp.url == "http://a/mcp"
    assert thawed(c.arguments) == {"list": [1, {"deep": "yes"}]}
    assert "very-secret" not in str(read.redacted()) + repr(read)
    assert read.redacted()["tools"]["c"]["arguments"] == {"list": [1, {"deep": "yes"}]}
    again = load(recipe, environ={"TOKEN": "very-secret"})
    other = load(recipe, environ={"TOKEN": "another-one"})
    assert again.tools == read.tools and hash(again) == hash(read)
    assert other.tools["a"] != a and other.tools["c"] == c
