"""What a recipe says about connections: deadlines, their number, and the names a server is reached by."""

from datetime import timedelta
from pathlib import Path

import pytest

from config import RecipeError, load


def written(folder: Path, server: str) -> Path:
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"version: 1\nserver: {server}\n", encoding="utf-8")
    return recipe


def test_deadlines_have_defaults_and_units(tmp_path: Path) -> None:
    server = load(written(tmp_path, "{limits: {header_timeout: 500ms, connections: 9}, keep_alive: 1m}")).server
    assert server.limits.header_timeout == timedelta(milliseconds=500)
    assert server.limits.body_timeout == server.limits.write_timeout == timedelta(seconds=30)
    assert server.limits.connections == 9
    assert server.keep_alive == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("server", "message"),
    [
        ("{hosts: ['https://hearth.example.com']}", "is not the name of a host"),
        ("{hosts: ['hearth.example.com:80']}", "is not the name of a host"),
        ("{hosts: ['*']}", "is not the name of a host"),
        ("{limits: {header_timeout: 10}}", 'a duration has a unit: ms, s, m, h or d, did you mean "10s"?'),
        ("{limits: {connections: 0}}", "server.limits.connections"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, server: str, message: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load(written(tmp_path, server))
    assert message in str(raised.value.faults[0])
