"""The chat wire, byte by byte where clients depend on it, on the echo engine whose answers are known."""

import json
from typing import Any

import httpx
import pytest

from tests.live import Live

CHAT = "/v1/chat/completions"


def ask(live: Live, **changes: Any) -> httpx.Response:
    body = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}]} | changes
    with live.client() as client:
        return client.post(CHAT, json=body)


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in reply.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def text(chunks: list[dict[str, Any]], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def test_a_whole_answer_has_every_field_clients_read(wire: Live) -> None:
    body = ask(wire).json()
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert isinstance(body["created"], int)
    assert body["model"] == "echo"
    assert body["system_fingerprint"].startswith("fp_")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "one two three", "refusal": None, "annotations": []},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ]
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def test_a_stream_begins_with_the_role_ends_with_the_reason_and_then_done(wire: Live) -> None:
    reply = ask(wire, stream=True)
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    chunks = events(reply)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert text(chunks) == "one two three"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all("usage" not in chunk for chunk in chunks)
    assert {(chunk["id"], chunk["created"], chunk["object"]) for chunk in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], "chat.completion.chunk")
    }


def test_usage_comes_last_and_only_when_asked_for(wire: Live) -> None:
    chunks = events(ask(wire, stream=True, stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3


def test_text_that_needs_escaping_survives_the_stream(wire: Live) -> None:
    said = 'a "quote" \\ back\nline \u2028 é 漢字 😀 \x01'
    chunks = events(ask(wire, stream=True, messages=[{"role": "user", "content": said}]))
    assert text(chunks) == said


@pytest.mark.parametrize(
    ("stop", "said"),
    [("two", "one "), (["three", "two"], "one "), ("e t", "on"), ("never", "one two three"), (["three"], "one two ")],
)
def test_a_stop_string_never_leaks(wire: Live, stop: object, said: str) -> None:
    assert ask(wire, stop=stop).json()["choices"][0]["message"]["content"] == said
    assert text(events(ask(wire, stop=stop, stream=True))) == said


def test_max_completion_tokens_wins_over_max_tokens(wire: Live) -> None:
    choice = ask(wire, max_tokens=1, max_completion_tokens=2).json()["choices"][0]
    assert choice["message"]["content"] == "one two"
    assert choice["finish_reason"] == "length"


def test_several_choices(wire: Live) -> None:
    assert [choice["index"] for choice in ask(wire, n=3).json()["choices"]] == [0, 1, 2]
    chunks = events(ask(wire, n=3, stream=True))
    assert [text(chunks, index) for index in range(3)] == ["one two three"] * 3


def test_content_parts_and_the_developer_role(wire: Live) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    said = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    assert ask(wire, messages=said).json()["choices"][0]["message"]["content"] == "a\nb"


def test_aliases_and_routes_without_the_prefix(wire: Live) -> None:
    with wire.client() as client:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "x"}]}
        assert client.post("/chat/completions", json=body).json()["model"] == "gpt-4o-mini"


def test_unknown_parameters_are_named_and_not_refused(wire: Live) -> None:
    reply = ask(wire, temperature=0.5, brand_new=1, user="me")
    assert reply.status_code == 200
    assert set(reply.headers["x-ignored-params"].split(",")) == {"temperature", "brand_new", "user"}


BAD = [
    ({"stream": "0"}, 400, "stream"),
    ({"stream": 1}, 400, "stream"),
    ({"temperature": "0.5"}, 400, "temperature"),
    ({"temperature": 3}, 400, "temperature"),
    ({"messages": []}, 400, "messages"),
    ({"messages": "hi"}, 400, "messages"),
    ({"messages": [{"role": "robot", "content": "x"}]}, 400, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0]"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"n": 0}, 400, "n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop"),
    ({"logprobs": True}, 400, "logprobs"),
    ({"response_format": {"type": "json_object"}}, 400, "response_format"),
    ({"tool_choice": "required", "tools": []}, 400, "tool_choice"),
    ({"logit_bias": {"1": 5}}, 400, "logit_bias"),
    ({"model": "ecko"}, 404, "model"),
    ({"model": "embed"}, 400, "model"),
    ({"model": ""}, 400, "model"),
    ({"model": None}, 400, "model"),
]


@pytest.mark.parametrize(("changes", "status", "param"), BAD)
def test_a_bad_field_is_named(wire: Live, changes: dict[str, Any], status: int, param: str) -> None:
    for streamed in (False, True):
        reply = ask(wire, **({"stream": streamed} | changes))
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (status, param)
        assert set(error) == {"message", "type", "param", "code"}


def test_an_unknown_model_lists_near_names(wire: Live) -> None:
    error = ask(wire, model="ecko").json()["error"]
    assert error["code"] == "model_not_found"
    assert "echo" in error["message"]


def test_a_prompt_over_the_context_says_so_as_clients_expect(wire: Live) -> None:
    reply = ask(wire, messages=[{"role": "user", "content": "word " * 600}])
    error = reply.json()["error"]
    assert reply.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert (
        "This model's maximum context length is 500 tokens. However, your messages resulted in 60" in error["message"]
    )
