"""The routes of Ollama's API that editors probe, as its clients read them, over raw HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.live import Live
from tests.making import TEXT

HELLO: Any = [{"role": "user", "content": "Hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"days": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["days"],
    "additionalProperties": False,
}
LOOK: Any = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
COUNTS = ["total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"]


@pytest.fixture(scope="module")
def client(generating: Live) -> Iterator[httpx.Client]:
    with generating.client() as client:
        yield client


def said(client: httpx.Client, route: str = "/api/chat", **changes: Any) -> Any:
    body = {"model": "automaton", "stream": False} | ({"messages": HELLO} if route == "/api/chat" else {}) | changes
    reply = client.post(route, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def lines(client: httpx.Client, route: str = "/api/chat", **body: Any) -> list[dict[str, Any]]:
    reply = client.post(route, json={"model": "automaton"} | body)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/x-ndjson"), reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


# ---- chat -----------------------------------------------------------------------------------------------------------


def test_a_chat_is_streamed_in_lines_unless_told_otherwise(client: httpx.Client) -> None:
    *parts, last = lines(client, messages=HELLO)
    assert "".join(part["message"]["content"] for part in parts) == TEXT
    assert all(set(part) == {"model", "created_at", "message", "done"} and not part["done"] for part in parts)
    assert (last["done"], last["done_reason"], last["message"]) == (True, "stop", {"role": "assistant", "content": ""})
    whole = said(client)
    assert whole["message"] == {"role": "assistant", "content": TEXT}
    assert (whole["model"], whole["done"], whole["eval_count"]) == ("automaton", True, last["eval_count"])


def test_times_are_those_of_the_answer(client: httpx.Client) -> None:
    answer = said(client)
    assert all(isinstance(answer[name], int) and answer[name] >= 0 for name in COUNTS)
    parts = answer["load_duration"] + answer["prompt_eval_duration"] + answer["eval_duration"]
    assert parts == answer["total_duration"] > 0


def test_options_shape_the_answer(client: httpx.Client) -> None:
    short = said(client, options={"num_predict": 3, "temperature": 0, "seed": 1})
    assert (short["eval_count"], short["done_reason"]) == (3, "length")
    stopped = said(client, options={"stop": ["very sm"], "num_predict": -1})
    assert stopped["message"]["content"] == TEXT[: TEXT.index("very small")]
    body = {"model": "automaton", "messages": HELLO, "stream": False, "keep_alive": "5m", "options": {"num_ctx": 9}}
    reply = client.post("/api/chat", json=body)
    assert set(reply.headers["x-ignored-params"].split(",")) == {"keep_alive", "options.num_ctx"}
    wrong = client.post("/api/chat", json=body | {"options": {"temperature": "hot"}})
    assert (wrong.status_code, list(wrong.json())) == (400, ["error"])


@pytest.mark.parametrize("model", ["automaton", "rebel"])
def test_a_format_binds(model: str, client: httpx.Client) -> None:
    jsonschema_rs.validate(SCHEMA, json.loads(said(client, model=model, format=SCHEMA)["message"]["content"]))
    answer = said(client, "/api/generate", model="automaton", prompt="Hi", format="json")
    assert isinstance(json.loads(answer["response"]), dict)


def test_calls_come_whole_with_their_arguments_as_objects(client: httpx.Client) -> None:
    first = said(client, tools=[LOOK])
    assert "tool_calls" not in first["message"]
    begun = [*HELLO, {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"days": 1}}}]}]
    answered = said(client, messages=[*begun, {"role": "tool", "tool_name": "look", "content": "dark"}], tools=[LOOK])
    assert answered["message"]["content"] == TEXT
    assert answered["prompt_eval_count"] > first["prompt_eval_count"]


def test_thinking_is_kept_apart(client: httpx.Client) -> None:
    raw = {"model": "rebel", "raw": True, "prompt": "Hi\n", "options": {"num_predict": 4}}
    assert said(client, "/api/generate", **raw)["eval_count"] == 4
    thinking = said(client, think=True)["prompt_eval_count"]
    assert said(client, think=False)["prompt_eval_count"] > thinking == said(client)["prompt_eval_count"]


def test_a_prompt_is_answered_as_a_users_message(client: httpx.Client) -> None:
    *parts, last = lines(client, "/api/generate", prompt="Hello", system="Be brief.")
    assert "".join(part["response"] for part in parts) == TEXT
    assert (last["done"], last["response"]) == (True, "")
    raw = said(client, "/api/generate", prompt="Hello\n", raw=True)
    assert raw["response"] == TEXT
    assert raw["prompt_eval_count"] < last["prompt_eval_count"]


def test_nothing_to_say_loads_the_model(client: httpx.Client) -> None:
    for route, empty in (("/api/chat", {"messages": []}), ("/api/generate", {"prompt": ""})):
        answer = said(client, route, **empty)
        assert (answer["done"], answer["done_reason"]) == (True, "load")


def test_a_fault_in_the_middle_is_the_last_line(client: httpx.Client) -> None:
    found = lines(client, model="late", messages=[{"role": "user", "content": "one two three four five six"}])
    assert list(found[-1]) == ["error"]
    assert "deadline" in found[-1]["error"]


# ---- vectors --------------------------------------------------------------------------------------------------------


def test_texts_become_vectors(wire: Live) -> None:
    with wire.client() as client:
        several = said(client, "/api/embed", model="embed:latest", input=["one", "two"])
        single = said(client, "/api/embed", model="embed", input="one")
        older = said(client, "/api/embeddings", model="embed", prompt="one")
        refused = client.post("/api/embed", json={"model": "echo", "input": "one"})
        empty = client.post("/api/embed", json={"model": "embed", "input": []})
        short = said(client, "/api/embed", model="embed", input="one", dimensions=128)["embeddings"]
        other = client.post("/api/embed", json={"model": "embed", "input": "one", "dimensions": 100})
    assert [len(row) for row in short] == [128]
    assert other.status_code == 400 and "128" in other.json()["error"]
    assert [len(row) for row in several["embeddings"]] == [384, 384]
    assert single["embeddings"] == [older["embedding"]]
    assert (refused.status_code, empty.status_code) == (400, 400)


# ---- models ---------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_described(generating: Live) -> None:
    with generating.client() as client:
        listed = {each["name"]: each for each in client.get("/api/tags").json()["models"]}
        running = {each["model"]: each for each in client.get("/api/ps").json()["models"]}
        shown = said(client, "/api/show", model="rebel:latest")
        older = said(client, "/api/show", model=None, name="rebel")
        version = client.get("/api/version").json()["version"]
    rebel = listed["rebel"]
    assert set(rebel) == {"name", "model", "modified_at", "size", "digest", "details"}
    assert (rebel["details"]["family"], rebel["details"]["format"], len(rebel["digest"])) == ("qwen3", "gguf", 64)
    assert rebel["size"] > 0 and running["rebel"]["context_length"] == 2048
    assert shown == older
    architecture = shown["model_info"]["general.architecture"]
    assert shown["model_info"][f"{architecture}.context_length"] == 2048
    assert {"completion", "tools"} <= set(shown["capabilities"])
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)  # Copilot refuses older ones


def test_what_a_model_can_is_said(wire: Live) -> None:
    with wire.client() as client:
        assert said(client, "/api/show", model="embed")["capabilities"] == ["embedding"]
        assert said(client, "/api/show", model="echo")["capabilities"] == ["completion"]


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_faults_are_one_sentence(wire: Live, keyed: Live) -> None:
    picture = [{"role": "user", "content": "What is it?", "images": ["aGk="]}]
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("/api/chat", {"model": "nope", "messages": HELLO}, 404),
        ("/api/chat", {"messages": HELLO}, 400),
        ("/api/chat", {"model": "echo", "messages": picture}, 400),
        ("/api/chat", {"model": "embed", "messages": HELLO}, 400),
        ("/api/chat", {"model": "echo", "messages": HELLO, "format": "xml"}, 400),
        ("/api/chat", {"model": "echo", "messages": HELLO, "format": SCHEMA}, 400),
        ("/api/chat", {"model": "echo", "messages": HELLO, "think": "much"}, 400),
        ("/api/generate", {"model": "echo", "prompt": "Hi", "template": "x"}, 400),
        ("/api/generate", {"model": "echo", "prompt": "Hi", "suffix": "x"}, 400),
        ("/api/show", {}, 400),
        ("/api/pull", {"model": "echo"}, 404),
    ]
    with wire.client() as client:
        for route, body, status in cases:
            reply = client.post(route, json=body)
            assert reply.status_code == status, (route, body, reply.text)
            assert list(reply.json()) == ["error"] and reply.json()["error"].endswith((".", "?"))
    with keyed.client() as client:
        assert client.get("/api/tags").json() == {"error": client.get("/api/tags").json()["error"]}
        assert client.get("/api/tags").status_code == 401
        assert client.get("/api/version").status_code == 200
