"""What a running server takes over of a changed recipe, and what it names as needing a restart."""

from pathlib import Path

import pytest

from config import Recipe, load
from server.reloading import others

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
