"""The plugin author's page: its example package works from its folder, and installed by its entry points."""

import re
import shutil
import subprocess
import sys
import tomllib
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from config import load
from config.tool import ToolSpec
from server.tools.toolbox import Toolbox
from tests.tools.conftest import nothing_found

RECIPES = Path(__file__).parents[2] / "recipes"
PACKAGE = RECIPES / "examples" / "hearth-clock"
PAGE = (RECIPES / "handbook" / "tools.md").read_text(encoding="utf-8")


def specs(folder: Path, tools: str) -> dict[str, ToolSpec]:
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"version: 1\ntools:\n{tools}", encoding="utf-8")
    return dict(load(recipe).tools)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, in a folder of its own; built from a copy, because that leaves files behind."""
    target = tmp_path_factory.mktemp("installed")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / PACKAGE.name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", target, source],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.mark.anyio
async def test_installed_it_is_found_by_its_entry_points(installed: Path, tmp_path: Path) -> None:
    tools = f"  clock: {{python: now, folder: {installed}}}\n  days: {{python: days_between, folder: {installed}}}\n"
    async with Toolbox(specs(tmp_path, tools), nothing_found) as box:
        [clock, days] = await box.tools()
        assert clock.description.startswith("Tell the date and the time.")
        assert days.parameters["properties"]["unit"]["enum"] == ["days", "weeks"]
        counted = await box.call("days", '{"start": "2026-02-27", "end": "2026-03-02"}')
        assert counted.structured == {"days": 3}


@pytest.mark.anyio
async def test_from_its_folder_it_works_without_being_installed(tmp_path: Path) -> None:
    tools = f'  clock: {{python: "hearth_clock:now", folder: {PACKAGE}, env: {{CLOCK_ZONE: Asia/Tokyo}}}}\n'
    async with Toolbox(specs(tmp_path, tools), nothing_found) as box:
        before = datetime.now(ZoneInfo("Asia/Tokyo")).replace(microsecond=0)
        told = (await box.call("clock", {})).text
        after = datetime.now(ZoneInfo("Asia/Tokyo"))
    day, date, time, zone = told.split()
    at = datetime.fromisoformat(f"{date}T{time}+09:00")
    assert before <= at <= after and zone == "JST" and day == f"{at:%A},"


def test_the_page_shows_what_the_package_has() -> None:
    [shown] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    points = tomllib.loads(shown)["project"]["entry-points"]["hearth.tools"]
    assert points.items() <= project["project"]["entry-points"]["hearth.tools"].items()
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    written = (PACKAGE / "hearth_clock.py").read_text(encoding="utf-8")
    assert code.rstrip().removesuffix('"""').rstrip() in written
