"""What a running server takes over of a changed recipe, and what it names as needing a restart."""

import asyncio
from pathlib import Path

import pytest

from config import Recipe, load
from server.api.auth import KeyRing
from server.reloading import Reload, needed_tools, others
from server.runtime import Runtime

BASE = """\
version: 1
server:
  listen: 127.0.0.1:8080
  keys: [{name: a, secret: sk-a-12345}]
  limits: {queue: 5, body: 1MiB}
models:
  echo: {engine: echo}
"""


def read(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ={})


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("name: a", "name: b", []),
        ("sk-a-12345", "sk-b-12345", []),
        ("queue: 5", "queue: 6, requests_per_minute: 5, tokens_per_minute: 5", []),
        ("  keys:", "  keys_file: ./keys.yaml\n  keys:", []),
        ("8080", "9090", ["server.listen"]),
        ("1MiB", "2MiB", ["server.limits.body"]),
        ("engine: echo", "engine: echo, context: 5", ["models"]),
        (
            "models:",
            "  cors: ['https://chat.example.com']\nmodels:\n  other: {engine: echo}",
            ["models", "server.cors"],
        ),
    ],
)
def test_what_needs_a_restart(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    assert others(read(tmp_path, BASE), read(tmp_path, BASE.replace(old, new))) == told


def test_tools_need_no_restart_and_those_of_assistants_stay(tmp_path: Path) -> None:
    tools = "tools:\n  a: {python: 'm:a'}\n  b: {python: 'm:b'}\n"
    model = '  chat: {engine: openvino, source: "made:random"}\nassistants:\n  helper: {model: chat, tools: [a]}\n'
    old = read(tmp_path, BASE + model + tools)
    new = read(tmp_path, BASE + model + tools.replace("m:b", "m:c"))
    assert old != new and others(old, new) == []
    assert needed_tools(old) == {"a"}


@pytest.mark.anyio
async def test_a_changed_recipe_changes_the_tools_of_a_running_server(tmp_path: Path) -> None:
    (tmp_path / "sums.py").write_text(
        'def add(a: int) -> int:\n    """Add one."""\n    return a + 1\n', encoding="utf-8"
    )
    base = BASE.replace("  limits", f"  data: {tmp_path / 'data'}\n  limits") + "tools:\n"
    recipe = read(tmp_path, base + "  add: {python: 'sums:add'}\n")
    async with Runtime.build(recipe) as runtime, Reload(recipe, KeyRing()).watching(runtime):
        assert (await runtime.tools.call("add", {"a": 1})).text == "2"
        recipe.path.write_text(base + "  more: {python: 'sums:add'}\n", encoding="utf-8")
        async with asyncio.timeout(30):
            while runtime.tools.entries != ("more",):  # noqa: ASYNC110  # nothing tells of a reload but its log
                await asyncio.sleep(0.05)
        assert (await runtime.tools.call("more", {"a": 1})).text == "2"
