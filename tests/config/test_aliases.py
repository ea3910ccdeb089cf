"""Aliases of models, and what a star at the end of one may stand for."""

from pathlib import Path

import pytest

from config import RecipeError, load


def recipe(tmp_path: Path, first: str, second: str = "") -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"version: 1\nmodels:\n  a: {{engine: echo, aliases: [{first}]}}\n  b: {{engine: echo, aliases: [{second}]}}\n",
        encoding="utf-8",
    )
    return file


def test_an_alias_may_end_with_a_star(tmp_path: Path) -> None:
    models = load(recipe(tmp_path, '"claude-*"', '"claude-haiku-*", claude-3')).models
    assert (models["a"].aliases, models["b"].aliases) == (("claude-*",), ("claude-haiku-*", "claude-3"))


@pytest.mark.parametrize("alias", ["*", "cl*de", "claude-**", "claude-*-x"])
def test_a_star_stands_nowhere_else(tmp_path: Path, alias: str) -> None:
    with pytest.raises(RecipeError, match=r"models\.a\.aliases\.0"):
        load(recipe(tmp_path, f'"{alias}"'))


def test_two_models_cannot_claim_the_same_beginning(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is taken by"):
        load(recipe(tmp_path, '"claude-*"', '"claude-*"'))
