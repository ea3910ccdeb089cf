"""What the README tells people to paste works as it stands."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import load
from tests.live import Live
from tests.making import made

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CURLS = [
    command.strip()
    for language, block in BLOCKS
    if language == "sh"
    for command in re.findall(r"^curl (?:.*\\\n)*.*$", block, re.MULTILINE)
]
PYTHON = [block for language, block in BLOCKS if language == "python"]
YAML = [block for language, block in BLOCKS if language == "yaml"]


def at(live: Live, text: str) -> str:
    return text.replace("http://127.0.0.1:8080", live.url)


@pytest.mark.parametrize("command", CURLS)
def test_a_curl_line(starter: Live, command: str) -> None:
    done = subprocess.run(["bash", "-c", at(starter, command)], capture_output=True, text=True, timeout=60, check=True)
    if '"stream": true' in command:
        assert done.stdout.rstrip().endswith("data: [DONE]")
    else:
        reply = json.loads(done.stdout)
        assert "error" not in reply
        assert reply.get("choices") or reply.get("data")


def test_the_three_ways_to_try_are_there() -> None:
    assert len(CURLS) == 3
    assert len(PYTHON) == 1


@pytest.mark.parametrize("block", PYTHON)
def test_the_sdk_block(starter: Live, block: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", at(starter, block)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[384, 384]" in done.stdout
    assert "starter" in done.stdout


@pytest.mark.parametrize("block", YAML)
def test_a_recipe(tmp_path: Path, block: str) -> None:
    (tmp_path / "handbook").mkdir()
    for file in re.findall(r"\./(\S+\.gguf)", block):
        (tmp_path / file).symlink_to(made("automaton"))
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    assert load(tmp_path / "recipe.yaml").models
