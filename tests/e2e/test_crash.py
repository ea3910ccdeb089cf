"""A killed worker costs the requests on its model an error each, and nothing else."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.live import Live, serving, wait_for

STREAMS = 16
RECIPE = """\
version: 1
models:
  slow: {engine: echo, tokens_per_second: 20}
  other: {engine: echo, tokens_per_second: 50}
"""


def stream(live: Live, model: str, words: int, begun: "threading.Semaphore") -> list[dict[str, object]]:
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "word " * words}]}
    seen: list[dict[str, object]] = []
    with live.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: {"):
                seen.append(json.loads(line.removeprefix("data: ")))
                if len(seen) == 3:
                    begun.release()
    return seen


def children(pid: int) -> dict[int, str]:
    """The command line of each, in the order in which they were started: numbers of processes begin anew at times."""
    found: list[tuple[int, int, str]] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8")
                command = (entry / "cmdline").read_text(encoding="utf-8")
            except (FileNotFoundError, ProcessLookupError):
                continue
            told = stat.rpartition(")")[2].split()
            if int(told[1]) == pid:
                found.append((int(told[19]), int(entry.name), command))
    return {number: command for _, number, command in sorted(found)}


def health(live: Live) -> dict[str, dict[str, object]]:
    with live.client() as client:
        models: dict[str, dict[str, object]] = client.get("/health").json()["models"]
        return models


def test_killing_a_worker_under_sixteen_streams(tmp_path: Path) -> None:
    recipe = tmp_path / "crash.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with serving(recipe, tmp_path / "data") as live:
        victim = _worker_of(live, "slow")
        begun = threading.Semaphore(0)
        results: list[list[dict[str, object]]] = []
        runs = [
            threading.Thread(target=lambda: results.append(stream(live, "slow", 2000, begun))) for _ in range(STREAMS)
        ]
        beside: list[list[dict[str, object]]] = []
        other = threading.Thread(target=lambda: beside.append(stream(live, "other", 60, threading.Semaphore(0))))
        for thread in (*runs, other):
            thread.start()
        for _ in range(STREAMS):
            assert begun.acquire(timeout=30)
        os.kill(victim, signal.SIGKILL)
        for thread in (*runs, other):
            thread.join(timeout=30)
            assert not thread.is_alive()
        assert len(results) == STREAMS
        for chunks in results:
            error = chunks[-1]["error"]
            assert isinstance(error, dict)
            assert error["code"] == "model_crashed"
        choices = beside[0][-1]["choices"]
        assert isinstance(choices, list)
        assert choices[0]["finish_reason"] == "stop"
        wait_for(lambda: health(live)["slow"]["state"] == "ready", "the model did not come back", live.log)
        assert health(live)["slow"]["restarts"] == 1
        assert health(live)["other"]["restarts"] == 0
        assert len(stream(live, "slow", 5, threading.Semaphore(0))) == 8


def test_a_client_that_leaves_frees_its_place(tmp_path: Path) -> None:
    recipe = tmp_path / "leave.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with serving(recipe, tmp_path / "data") as live:
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * 2000}]}
        with live.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()  # held: letting it go would close the connection
            next(lines)
            assert health(live)["slow"]["in_flight"] == 1
        wait_for(lambda: health(live)["slow"]["in_flight"] == 0, "the request was not cancelled", live.log)
        with live.client() as client:
            assert "hearth_requests_cancelled" in client.get("/metrics").text


def test_a_full_queue_answers_429_with_retry_after(tmp_path: Path) -> None:
    recipe = tmp_path / "full.yaml"
    slow = "tokens_per_second: 20, parallel: 1, queue: 1"
    recipe.write_text(RECIPE.replace("tokens_per_second: 20", slow), encoding="utf-8")
    with serving(recipe, tmp_path / "data") as live:
        body = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "word " * 2000}]}
        with live.client() as client, client.stream("POST", "/v1/chat/completions", json=body) as reply:
            lines = reply.iter_lines()
            next(lines)
            with client.stream("POST", "/v1/chat/completions", json=body) as waiting:
                assert waiting.status_code == 200
                refused = httpx.post(f"{live.url}/v1/chat/completions", json=body, timeout=30, trust_env=False)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["type"] == "rate_limit_error"


def test_a_model_that_cannot_load_leaves_the_others_serving(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    (broken / "model.safetensors").write_bytes(b"not weights")
    recipe = tmp_path / "broken.yaml"
    recipe.write_text(
        "version: 1\nmodels:\n  echo: {engine: echo}\n  bad: {engine: openvino, source: ./broken, task: embed}\n",
        encoding="utf-8",
    )
    with serving(recipe, tmp_path / "data", until="/healthz") as live:
        settled = {"bad": "failed", "echo": "ready"}
        wait_for(
            lambda: {name: model["state"] for name, model in health(live).items()} == settled,
            "the models did not settle",
            live.log,
        )
        assert "config.json" in str(health(live)["bad"]["error"])
        with live.client() as client:
            assert client.get("/readyz").status_code == 503
            refused = client.post("/v1/embeddings", json={"model": "bad", "input": "x"})
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "config.json" in refused.json()["error"]["message"]
            said = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
            assert client.post("/v1/chat/completions", json=said).status_code == 200


def test_nothing_survives_the_gateway(tmp_path: Path) -> None:
    recipe = tmp_path / "orphan.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    with serving(recipe, tmp_path / "data") as live:
        workers = list(children(live.process.pid))
        assert len(workers) == 2
        live.process.kill()
        live.process.wait(10)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "a worker survived", live.log)


def test_an_idle_model_is_unloaded_and_comes_back_on_demand(tmp_path: Path) -> None:
    recipe = tmp_path / "idle.yaml"
    recipe.write_text("version: 1\nmodels:\n  echo: {engine: echo, idle_unload: 300ms}\n", encoding="utf-8")
    said = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    with serving(recipe, tmp_path / "data") as live, live.client() as client:
        assert client.post("/v1/chat/completions", json=said).status_code == 200
        wait_for(lambda: health(live)["echo"]["state"] == "stopped", "it stayed loaded", live.log)
        wait_for(lambda: children(live.process.pid) == {}, "its process did not end", live.log)
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/chat/completions", json=said).status_code == 200


def test_a_port_in_use_is_said_before_anything_starts(wire: Live, tmp_path: Path) -> None:
    recipe = tmp_path / "port.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    listen = wire.url.removeprefix("http://")
    command = [sys.executable, "-m", "server", "serve", str(recipe), "--listen", listen]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "is in use" in done.stdout + done.stderr


def _worker_of(live: Live, model: str) -> int:
    """The process of a model, as the log tells it: the gateway's children start in the order of the recipe."""
    workers = list(children(live.process.pid))
    assert len(workers) == 2
    return workers[["slow", "other"].index(model)]
