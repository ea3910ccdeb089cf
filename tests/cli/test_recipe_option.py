"""The recipe may be named anywhere on the line, of every command."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from server.__main__ import main


@pytest.mark.parametrize(
    "line",
    [
        "show RECIPE",
        "show -r RECIPE",
        "show --recipe=RECIPE",
        "pull RECIPE --verify",
        "pull --verify -r RECIPE",
        "keys -r RECIPE list",
        "keys list -r RECIPE",
        "keys list -rRECIPE",
        "keys list --recipe RECIPE",
        "keys list --recipe=RECIPE",
        "tools call nothing -r RECIPE",
        "policies run nothing --key secret -r RECIPE",
        "backup list -r RECIPE",
        "knowledge -r RECIPE",
    ],
)
def test_the_recipe_is_the_one_that_is_named(line: str, tmp_path: Path) -> None:
    recipe = tmp_path / "none.yaml"
    done = CliRunner().invoke(main, line.replace("RECIPE", str(recipe)).split())
    assert (done.exit_code, done.output) == (1, f"{recipe}: the file does not exist\n")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("show a.yaml -r b.yaml", "one recipe, not 2: a.yaml, b.yaml"),
        ("pull a.yaml -r b.yaml", "one recipe, not 2: a.yaml, b.yaml"),
        ("keys list -r", "Option '-r' requires an argument."),
        ("keys list --recipe", "Option '--recipe' requires an argument."),
        ("tools call -- -r", "There is no tool -r."),
    ],
)
def test_what_cannot_be_meant_is_told(line: str, told: str) -> None:
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code != 0 and told in done.output
