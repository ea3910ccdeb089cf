"""Toolboxes of recipes that tests write: their modules are the files of `modules`, beside the recipe."""

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from config import load
from server.knowledge import Hit
from server.tools.toolbox import Toolbox

MODULES = Path(__file__).parent / "modules"

Open = Callable[[str], AbstractAsyncContextManager[Toolbox]]


def appears(path: Path) -> None:
    """Wait for a file that another process makes; blocks, half a minute at most."""
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.01)


async def nothing_found(collection: str, query: str, k: int | None) -> list[Hit]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipe's folder, with the modules in it."""
    shutil.copytree(MODULES, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def opened(folder: Path) -> Open:
    """A toolbox of the `tools` section given as text; enter it."""

    def make(tools: str) -> Toolbox:
        recipe = folder / "recipe.yaml"
        recipe.write_text(f"version: 1\ntools:\n{tools}", encoding="utf-8")
        return Toolbox(load(recipe).tools, nothing_found)

    return make
