"""The `hearth` command as a user runs it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.live import Live

ROOT = Path(__file__).parents[2]
STARTER = ROOT / "recipes" / "starter.yaml"


def hearth(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "server", *arguments]
    told = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=told, cwd=ROOT, check=False)


def test_check_names_every_fault_at_once_with_its_line(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(
        "version: 1\n"
        "models:\n"
        "  echo: {engine: echo, contxt: 5}\n"
        "  embed: {engine: openvino, source: ./nowhere, task: embed}\n"
        "assistants:\n"
        "  helper: {model: eco}\n"
        "server:\n"
        "  keys:\n"
        "    - {name: a, secret: '${env:HEARTH_TEST_MISSING}'}\n",
        encoding="utf-8",
    )
    done = hearth("check", str(recipe))
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 4
    for line, number in zip(lines, (3, 4, 6, 9), strict=True):
        assert line.startswith(f"{recipe}:{number}: "), line
    assert 'did you mean "context"?' in lines[0]
    assert 'did you mean "echo"?' in lines[2]
    assert "HEARTH_TEST_MISSING" in lines[3]
    assert hearth("serve", str(recipe)).returncode == 1


def test_check_of_a_sound_recipe() -> None:
    done = hearth("check", str(STARTER))
    assert done.returncode == 0
    assert "ok (2 models, 1 collections, 1 assistants)" in done.stdout


def test_show_resolves_everything_and_hides_secrets(tmp_path: Path) -> None:
    recipe = tmp_path / "keys.yaml"
    recipe.write_text(
        "version: 1\nserver:\n  keys: [{name: a, secret: '${env:MY_KEY}'}]\nmodels:\n  echo: {engine: echo}\n",
        encoding="utf-8",
    )
    done = hearth("show", str(recipe), MY_KEY="sk-hidden-12345", HEARTH__MODELS__ECHO__CONTEXT="99")
    assert done.returncode == 0
    assert "sk-hidden-12345" not in done.stdout
    assert "***" in done.stdout
    assert "context: 99" in done.stdout


def test_ask_streams_from_a_running_server(starter: Live) -> None:
    listen = starter.url.removeprefix("http://")
    done = hearth("ask", "How do I add my own documents?", HEARTH__SERVER__LISTEN=listen)
    assert done.returncode == 0, done.stderr
    assert ".md" in done.stdout
    missing = hearth("ask", "x", "--model", "nope", HEARTH__SERVER__LISTEN=listen)
    assert missing.returncode == 1
    assert "does not exist" in missing.stderr


def test_ingest_then_ask_without_a_server(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "boiler.md").write_text(
        "# Boiler\n\n## Service\n\nThe boiler in the cellar is serviced every 14 months by Brandt Heating.\n",
        encoding="utf-8",
    )
    (pages / "photo.txt").write_bytes(b"\x00\x01\x02\xff" * 100)
    told = {"HEARTH__SERVER__DATA": str(tmp_path / "data"), "HEARTH__SERVER__LISTEN": "127.0.0.1:9"}
    done = hearth("ingest", str(pages), **told)
    assert done.returncode == 0, done.stderr
    assert "1 added" in done.stdout
    assert "photo.txt" in done.stdout
    asked = hearth("ask", "Who services the boiler?", **told)
    assert "Brandt Heating" in asked.stdout
    again = hearth("ingest", str(pages), **told)
    assert "1 unchanged" in again.stdout
    known = hearth("knowledge", **told)
    assert "No server is running" in known.stderr
    # Beside the file there are the pages of the handbook, which `ask` brought in.
    assert re.search(r"documents +[\d,]+ in [\d,]+ chunks", known.stdout)
    assert re.search(r"FTS, [\d,]+ rows", known.stdout)
    refused = hearth("knowledge", "handbook", "--refused", **told)
    assert ("photo.txt" in refused.stdout, str(pages) in refused.stdout) == (True, True)


def test_each_line_of_a_file_is_a_document_of_its_own(tmp_path: Path) -> None:
    lines = tmp_path / "pages.jsonl"
    lines.write_text('{"id": "a", "text": "Apples."}\n{"id": "b"}\n{"id": "c", "text": "Cats."}\n', encoding="utf-8")
    told = {"HEARTH__SERVER__DATA": str(tmp_path / "data"), "HEARTH__SERVER__LISTEN": "127.0.0.1:9"}
    done = hearth("ingest", "--lines", str(lines), **told)
    assert done.returncode == 1, "a line was refused"
    assert "2 written, 0 unchanged, 0 deleted, 1 refused" in done.stdout
    assert "refused line 2: `text` is missing" in done.stdout
    known = json.loads(hearth("knowledge", "--json", **told).stdout)
    assert [(each["id"], each["documents"], each["state"]) for each in known] == [("handbook", 2, "not_loaded")]
