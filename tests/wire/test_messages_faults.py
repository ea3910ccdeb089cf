"""Faults on Anthropic's routes have Anthropic's shape and the request's id, also in the middle of a stream."""

from typing import Any

import httpx
import pytest

from tests.live import Live
from tests.wire.test_messages import events

GOOD: dict[str, Any] = {"model": "echo", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}


def fault_of(reply: httpx.Response) -> tuple[int, str, str]:
    assert reply.headers["content-type"] == "application/json"
    body = reply.json()
    assert set(body) == {"type", "error", "request_id"} and set(body["error"]) == {"type", "message"}
    assert body["type"] == "error"
    assert body["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
    return reply.status_code, body["error"]["type"], body["error"]["message"]


BODIES: dict[str, tuple[dict[str, Any] | bytes, int, str, str]] = {
    "no json": (b"{", 400, "invalid_request_error", "JSON"),
    "no limit": ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
    "no messages": ({"messages": []}, 400, "invalid_request_error", "messages"),
    "a strange role": (
        {"messages": [{"role": "tool", "content": ""}]},
        400,
        "invalid_request_error",
        "messages[0].role",
    ),
    "an unknown model": ({"model": "nope"}, 404, "not_found_error", "`nope`"),
    "another task": ({"model": "embed"}, 400, "invalid_request_error", "embed"),
    "too large": (b" " * (256 * 1024 + 1), 413, "request_too_large", "body"),
}


@pytest.mark.parametrize("name", BODIES)
def test_faults_have_anthropics_shape(name: str, wire: Live) -> None:
    changes, status, kind, named = BODIES[name]
    with wire.client() as client:
        for route in ("/v1/messages", "/messages"):
            if isinstance(changes, bytes):
                reply = client.post(route, content=changes, headers={"content-type": "application/json"})
            else:
                reply = client.post(route, json=GOOD | changes)
            told = fault_of(reply)
            assert told[:2] == (status, kind)
            assert named in told[2]


def test_routes_that_are_not_there_tell_so_in_the_same_shape(wire: Live) -> None:
    with wire.client() as client:
        assert fault_of(client.post("/v1/messages/batches", json={}))[:2] == (404, "not_found_error")
        assert fault_of(client.get("/v1/messages"))[:2] == (405, "invalid_request_error")
        asked = client.get("/v1/models/nope", headers={"anthropic-version": "2023-06-01"})
        assert fault_of(asked)[:2] == (404, "not_found_error")
        doubled = client.post("/v1/v1/messages", json=GOOD, headers={"anthropic-version": "2023-06-01"})
        assert "no /v1" in fault_of(doubled)[2]


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({}, 401, "authentication_error"),
        ({"x-api-key": "sk-wrong-key-1"}, 401, "authentication_error"),
        ({"x-api-key": "sk-retrieve-12345"}, 403, "permission_error"),
    ],
)
def test_keys_are_asked_for_in_the_same_shape(keyed: Live, headers: dict[str, str], status: int, kind: str) -> None:
    with keyed.client() as client:
        for route in ("/v1/messages", "/v1/messages/count_tokens"):
            assert fault_of(client.post(route, json=GOOD, headers=headers))[:2] == (status, kind)


def test_either_header_carries_a_key(keyed: Live) -> None:
    with keyed.client() as client:
        for headers in ({"x-api-key": "sk-infer-12345"}, {"authorization": "Bearer sk-infer-12345"}):
            assert client.post("/v1/messages", json=GOOD, headers=headers).status_code == 200


def test_a_prompt_over_the_context_says_so_as_claude_code_reads_it(wire: Live) -> None:
    with wire.client() as client:
        reply = client.post("/v1/messages", json=GOOD | {"messages": [{"role": "user", "content": "a " * 600}]})
    status, kind, message = fault_of(reply)
    assert (status, kind) == (400, "invalid_request_error")
    assert message == "prompt is too long: 601 tokens > 500 maximum"


def test_a_fault_in_the_middle_is_an_error_event(generating: Live) -> None:
    body = GOOD | {"model": "late", "stream": True, "max_tokens": 50}
    body["messages"] = [{"role": "user", "content": "one two three four five six"}]
    with generating.client() as client:
        reply = client.post("/v1/messages", json=body)
    found = events(reply)
    assert found[0]["type"] == "message_start"
    error = found[-1]
    assert (error["type"], error["error"]["type"]) == ("error", "timeout_error")
    assert error["request_id"] == reply.headers["request-id"]
