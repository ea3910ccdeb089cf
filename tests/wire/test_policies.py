"""Policies on the wire and in the terminal: when they run, how they went, and running them now."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.live import Live, serving

KEY = "sk-policies-12345"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "weights").mkdir()
    (folder / "weights" / "one.gguf").write_bytes(b"weights" * 1000)
    recipe = folder / "policies.yaml"
    recipe.write_text(
        "version: 1\n"
        "server:\n"
        "  keys:\n"
        f"    - {{name: boss, secret: {KEY}, scopes: [infer, admin]}}\n"
        "    - {name: ide, secret: sk-infer-12345, scopes: [infer]}\n"
        "models:\n"
        "  echo: {engine: echo}\n"
        "policies:\n"
        '  backup: {to: ./backups, what: [recipe, knowledge], at: "0 3 * * *"}\n',
        encoding="utf-8",
    )
    with serving(recipe, folder / "data") as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[httpx.Client]:
    with live.client(KEY) as client:
        yield client


def command(live: Live, *arguments: str) -> "subprocess.CompletedProcess[str]":
    recipe = live.log.parent.parent / "policies.yaml"
    listen = live.url.removeprefix("http://")
    environment = {"HEARTH__SERVER__LISTEN": listen, "HEARTH__SERVER__DATA": str(live.log.parent), "HEARTH_KEY": KEY}
    line = [sys.executable, "-m", "server", arguments[0], "--recipe", str(recipe), *arguments[1:]]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, env=environment)


def test_a_policy_is_run_and_its_report_remembered(client: httpx.Client, live: Live) -> None:
    [before] = client.get("/v1/policies").json()["data"]
    assert (before["name"], before["at"], before["last"]) == ("backup", "0 3 * * *", None) and before["next"] > 0
    run = client.post("/v1/policies/backup/run").json()
    assert run["outcome"] == "done" and run["figures"]["files"] == 2, run
    told = client.get("/v1/policies/backup", params={"limit": 1}).json()
    assert told["runs"] == [run] == [told["policy"]["last"]]
    assert client.get("/health").json()["policies"]["backup"]["state"] == "waiting"
    metrics = client.get("/metrics").text.splitlines()
    told = {line.partition("{")[0]: float(line.split()[-1]) for line in metrics if line.startswith("hearth_policy_")}
    assert told["hearth_policy_failing"] == told["hearth_policy_running"] == 0
    assert told["hearth_policy_last_seconds"] == pytest.approx(run["ended"], abs=0.001)
    files = [line for line in metrics if line.startswith("hearth_policy_figure{") and 'figure="files"' in line]
    assert [line.split()[-1] for line in files] == ["2.0"]
    [snapshot] = (live.log.parent.parent / "backups" / "snapshots").iterdir()
    kept = json.loads(snapshot.read_text(encoding="utf-8"))
    assert [file["path"] for file in kept["files"]] == ["recipe/policies.yaml", "state.db"]


def test_a_run_that_fails_says_why_and_degrades_the_health(client: httpx.Client, live: Live) -> None:
    client.post("/v1/policies/backup/run")
    packs = live.log.parent.parent / "backups" / "packs"
    away = packs.rename(packs.with_name("away"))
    packs.write_text("no folder")
    try:
        run = client.post("/v1/policies/backup/run").json()
        assert run["outcome"] == "failed" and "backups" in run["error"], run
        health = client.get("/health").json()
        assert health["status"] == "degraded" and health["policies"]["backup"]["state"] == "failed"
        assert health["policies"]["backup"]["next"] < client.get("/v1/policies").json()["data"][0]["next"] + 1
    finally:
        packs.unlink()
        away.rename(packs)
    assert client.post("/v1/policies/backup/run").json()["outcome"] == "done"
    assert client.get("/health").json()["status"] == "ok"


def test_policies_need_a_key_for_them_and_a_name_that_is_there(client: httpx.Client, live: Live) -> None:
    unknown = client.post("/v1/policies/bakcup/run")
    assert unknown.status_code == 404 and "This server has: backup" in unknown.json()["error"]["message"]
    with live.client("sk-infer-12345") as poor:
        assert poor.get("/v1/policies").status_code == 403
        assert poor.post("/v1/policies/backup/run").status_code == 403


def test_the_commands_speak_to_the_running_server(live: Live) -> None:
    ran = command(live, "policies", "run", "backup")
    assert ran.returncode == 0 and "2 files" in ran.stdout, ran.stderr
    shown = command(live, "policies")
    assert "backup" in shown.stdout and "done" in shown.stdout and "0 3 * * *" in shown.stdout, shown.stderr
    listed = command(live, "backup", "list")
    assert "bafybei" in listed.stdout, listed.stderr
    assert "every file was read and has its sum" in command(live, "backup", "verify").stdout
    out = live.log.parent.parent / "out"
    restored = command(live, "restore", "--what", "recipe", "--to", str(out))
    assert restored.returncode == 0, restored.stderr
    recipe = live.log.parent.parent / "policies.yaml"
    assert (out / "recipe" / "policies.yaml").read_bytes() == recipe.read_bytes()
    refused = command(live, "restore", "--in-place")
    assert refused.returncode == 1 and "stop it" in refused.stderr


def test_restoring_needs_no_recipe(live: Live, tmp_path: Path) -> None:
    assert command(live, "policies", "run", "backup").returncode == 0
    place = live.log.parent.parent / "backups"
    line = [sys.executable, "-m", "server", "restore", "--from", str(place), "--to", str(tmp_path / "out")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "state.db").read_bytes()[:15] == b"SQLite format 3"
