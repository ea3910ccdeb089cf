"""Tools and formats over Anthropic's wire, bound by grammars on weights that obey nothing."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.live import Live
from tests.wire.test_messages import TEXT, said, streamed
from tests.wire.trip import SCHEMA

WEATHER: Any = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
TIME: Any = {"type": "custom", "name": "time", "input_schema": {"type": "object", "properties": {}}}
MODELS = ["automaton", "rebel", "rebel-llamacpp"]


@pytest.fixture(scope="module")
def client(generating: Live) -> Iterator[httpx.Client]:
    with generating.client() as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
def test_a_named_tool_is_called(model: str, client: httpx.Client) -> None:
    choice = {"type": "tool", "name": "weather"}
    answer = said(client, model=model, tools=[TIME, WEATHER], tool_choice=choice)
    (call,) = answer["content"]
    assert (call["type"], call["name"], answer["stop_reason"]) == ("tool_use", "weather", "tool_use")
    assert call["id"].startswith("toolu_")
    jsonschema_rs.validate(SCHEMA, call["input"])


@pytest.mark.parametrize("model", MODELS)
def test_some_tool_is_called_and_one_where_only_one_may_be(model: str, client: httpx.Client) -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    answer = said(client, model=model, tools=[WEATHER, TIME], tool_choice=choice)
    (call,) = answer["content"]
    assert call["name"] in ("weather", "time")


def test_a_call_is_streamed_as_json_in_pieces(client: httpx.Client) -> None:
    found = streamed(client, model="rebel", tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    start, *deltas, stop = [event for event in found if event["type"].startswith("content_block")]
    block = start["content_block"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", {})
    assert {event["delta"]["type"] for event in deltas} == {"input_json_delta"}
    jsonschema_rs.validate(SCHEMA, json.loads("".join(event["delta"]["partial_json"] for event in deltas)))
    assert stop == {"type": "content_block_stop", "index": 0}
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_that_breaks_off_keeps_what_is_whole(client: httpx.Client) -> None:
    choice = {"type": "tool", "name": "weather"}
    for limit in (6, 9, 12):
        answer = said(client, model="rebel", max_tokens=limit, tools=[WEATHER], tool_choice=choice)
        assert answer["stop_reason"] in ("max_tokens", "tool_use")
        assert all(isinstance(block["input"], dict) for block in answer["content"] if block["type"] == "tool_use")


def test_tools_that_are_offered_need_not_be_called(client: httpx.Client) -> None:
    for choice in ({"type": "auto"}, {"type": "none"}):
        answer = said(client, tools=[WEATHER], tool_choice=choice)
        assert answer["content"] == [{"type": "text", "text": TEXT}]


@pytest.mark.parametrize("model", MODELS)
def test_a_format_binds(model: str, client: httpx.Client) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    for field in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        (block,) = said(client, model=model, temperature=1, **field)["content"]
        jsonschema_rs.validate(SCHEMA, json.loads(block["text"]))


def test_what_has_no_effect_is_named_and_hints_are_not(client: httpx.Client) -> None:
    body = {
        "model": "automaton",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {}}]}],
        "tools": [WEATHER | {"cache_control": {}}, {"type": "web_search_20250305", "name": "web_search"}],
        "cache_control": {"type": "ephemeral"},
        "metadata": {"user_id": "me"},
        "service_tier": "auto",
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "output_config": {"effort": "high"},
        "context_management": {"edits": []},
    }
    reply = client.post("/v1/messages", json=body)
    assert reply.status_code == 200, reply.text
    assert set(reply.headers["x-ignored-params"].split(",")) == {
        *("tools", "metadata", "service_tier", "context_management"),
        *("thinking.budget_tokens", "output_config.effort"),
    }
    plain = client.post("/v1/messages", json={"model": "automaton", "max_tokens": 1, "messages": body["messages"]})
    assert "x-ignored-params" not in plain.headers


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a call of no tool": ({"tool_choice": {"type": "any"}}, "tool_choice"),
    "only tools of other servers": (
        {"tools": [{"type": "bash_20250124", "name": "bash"}], "tool_choice": {"type": "any"}},
        "tool_choice",
    ),
    "a tool that is not there": ({"tools": [TIME], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
    "a tool without a schema": ({"tools": [{"name": "x"}]}, "tools[0]"),
    "a strange kind of thinking": ({"thinking": {"type": "hard"}}, "thinking.type"),
    "a format and a beginning": (
        {
            "output_format": {"type": "json_schema", "schema": {}},
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "{"}],
        },
        "last message",
    ),
    "a temperature over one": ({"temperature": 1.5}, "temperature"),
    "a call without an id": (
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "x", "input": {}}]}]},
        "messages[0].content[0]",
    ),
    "a result without a call": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
        "tool_use_id",
    ),
    "a thread": ({"thread": {"type": "create"}}, "`thread`"),
    "a compaction": ({"compaction": {"type": "summary"}}, "`compaction`"),
    "a text without text": ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "`text`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(name: str, client: httpx.Client) -> None:
    changes, named = REFUSED[name]
    body = {"model": "automaton", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]} | changes
    reply = client.post("/v1/messages", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert named in reply.json()["error"]["message"]


def test_a_model_that_cannot_call_says_so(wire: Live) -> None:
    with wire.client() as client:
        offered = client.post("/v1/messages", json=_echoed(tools=[WEATHER]))
        forced = client.post("/v1/messages", json=_echoed(tools=[WEATHER], tool_choice={"type": "any"}))
        begun = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]
        going_on = client.post("/v1/messages", json=_echoed(messages=begun))
    assert (offered.status_code, offered.headers["x-ignored-params"]) == (200, "tools")
    assert forced.status_code == going_on.status_code == 400
    assert "`tool_choice`" in forced.json()["error"]["message"]


def _echoed(**changes: Any) -> dict[str, Any]:
    return {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]} | changes
