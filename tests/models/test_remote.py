"""What is asked of another server and read from it, piece by piece, without one."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from server.errors import UpstreamFault
from server.models.dialect import Tools
from server.models.engine import Grammar, Message, Sampling, ToolCall
from server.models.remote.asking import Forwarded, body
from server.models.remote.events import Sent, events
from server.models.remote.faults import Teller
from server.models.remote.reading import Answering, context_of, scores, tokens_read, vectors
from server.models.tool_formats import CallArguments, CallStart, ToolSpec

KEY = "sk-12345678"
TELLER = Teller("cloud", "https://a.example/v1", KEY)


# ---- events ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_events_are_the_same_however_they_are_cut(size: int) -> None:
    stream = ': hello\r\n\r\ndata: {"a":\ndata: 1}\n\nevent: error\ndata:x\u2028y\n\nid: 3\n\ndata: cut'.encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), size):
            yield stream[start : start + size]

    found = [event async for batch in events(chunks()) for event in batch]
    assert found == [Sent("", b'{"a":\n1}'), Sent("error", "x\u2028y".encode()), Sent("", b"cut")]


# ---- faults ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"error": {"message": "no"}}, "no"),
        ({"error": "no"}, "no"),
        ({"detail": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"detail": [{"loc": ["body"]}]}, '[{"loc":["body"]}]'),
        ({}, "{}"),
        ([], "[]"),
    ],
)
def test_every_shape_of_a_refusal_has_its_message(reply: object, message: str) -> None:
    fault = TELLER.refused(418, {}, json.dumps(reply).encode())
    assert fault.message == f"{message} (told by the server behind the model `cloud`)"
    assert (fault.status, fault.type, fault.code) == (418, "invalid_request_error", "upstream_error")


def test_a_refusal_keeps_what_it_says_of_itself_and_loses_the_key() -> None:
    error = {"message": f"bad key {KEY}", "type": "auth", "code": 401, "param": "key"}
    fault = TELLER.refused(401, {"retry-after": "1.5"}, json.dumps({"error": error}).encode())
    assert (fault.type, fault.code, fault.param, fault.retry_after) == ("auth", "401", "key", 1.5)
    assert KEY not in fault.message and "bad key ***" in fault.message


def test_a_date_to_come_back_at_is_told_in_seconds() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    fault = TELLER.refused(429, {"retry-after": later}, b"")
    assert fault.retry_after is not None and 90 < fault.retry_after <= 100
    assert TELLER.refused(429, {"retry-after": "soon"}, b"").retry_after is None


def test_an_answer_that_is_neither_one_nor_an_error_is_a_bad_gateway() -> None:
    assert TELLER.refused(301, {}, b"moved").status == 502


# ---- asking ---------------------------------------------------------------------------------------------------------


def test_what_another_wire_asked_becomes_a_chat_request() -> None:
    call = ToolCall("c1", "f", '{"a":1}')
    asked = Forwarded(
        messages=[
            Message("user", "Hi", parts=[{"type": "image_url", "image_url": {"url": "x"}}]),
            Message("assistant", "", tool_calls=[call], reasoning="Hm."),
            Message("tool", "7", tool_call_id="c1"),
        ],
        max_tokens=9,
        stop=("END",),
        sampling=Sampling(temperature=0.5, seed=3, top_logprobs=2),
        grammar=Grammar("json_schema", '{"type": "string"}'),
        tools=Tools([ToolSpec("f", {"type": "object"}, "Does."), ToolSpec("g")], forced=True, many=False),
        options={"reasoning_effort": "none", "enable_thinking": False, "style": "brief"},
        grounds="Found.",
    )
    assert body(asked, "big") == {
        "model": "big",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {"role": "system", "content": "Found."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "Hm.",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "content": "7", "tool_call_id": "c1"},
        ],
        "max_tokens": 9,
        "stop": ["END"],
        "temperature": 0.5,
        "seed": 3,
        "logprobs": True,
        "top_logprobs": 2,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "schema": {"type": "string"}, "strict": True},
        },
        "tools": [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "description": "Does."}},
            {"type": "function", "function": {"name": "g"}},
        ],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "reasoning_effort": "none",
        "chat_template_kwargs": {"style": "brief"},
    }


@pytest.mark.parametrize(
    ("messages", "system"),
    [
        ([{"role": "user", "content": "Hi"}], "Found."),
        ([{"role": "developer", "content": "Be brief."}], "Be brief.\n\nFound."),
        ([{"role": "system", "content": None}], "Found."),
        (
            [{"role": "system", "content": [{"type": "text", "text": "A"}]}],
            [{"type": "text", "text": "A"}, {"type": "text", "text": "Found."}],
        ),
    ],
)
def test_what_was_found_joins_the_system_message_as_it_was_sent(messages: list[Any], system: object) -> None:
    sent = {"messages": msgspec.Raw(json.dumps(messages).encode()), "n": msgspec.Raw(b"3")}
    told = body(Forwarded(sent=sent, grounds="Found."), "big")
    assert told["messages"][0]["content"] == system
    assert "n" not in told


# ---- reading --------------------------------------------------------------------------------------------------------


def read(*chunks: object) -> Answering:
    answering = Answering(TELLER)
    answering.take([Sent("", json.dumps(chunk).encode()) for chunk in chunks])
    return answering


def delta(told: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": told, "finish_reason": finish_reason}]}


def test_counts_come_with_the_end_and_are_counted_where_nobody_tells() -> None:
    told = {"prompt_tokens": 3, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2}}
    last = read(delta({"content": "a"}, "length"), {"choices": [], "usage": told}).end()
    assert (last.prompt_tokens, last.tokens, last.cached_tokens, last.finish_reason) == (3, 9, 2, "length")
    assert read(delta({"content": "a"}), delta({"content": "b"}, "eos_token")).end().tokens == 2
    assert read(delta({"content": "a"}, "eos_token")).end().finish_reason == "stop"


def test_an_answer_without_a_reason_is_whole_only_when_it_says_done() -> None:
    answering = read(delta({"content": "a"}))
    with pytest.raises(UpstreamFault, match="in the middle"):
        answering.end()
    answering.take([Sent("", b"[DONE]")])
    assert answering.end().finish_reason == "stop"


def test_calls_without_an_index_are_told_apart() -> None:
    def call(told: dict[str, Any]) -> Sent:
        return Sent("", json.dumps(delta({"tool_calls": [told]})).encode())

    pieces = Answering(TELLER).take(
        [
            call({"function": {"name": "f", "arguments": "{"}}),
            call({"function": {"arguments": "}"}}),
            call({"function": {"name": "g", "arguments": ""}}),
            call({"index": 2, "id": "x", "function": {"name": "h", "arguments": {"a": 1}}}),
        ]
    )
    assert [piece for each in pieces for piece in each.calls] == [
        CallStart(0, "f"),
        CallArguments(0, "{"),
        CallArguments(0, "}"),
        CallStart(1, "g"),
        CallStart(2, "h", "x"),
        CallArguments(2, '{"a":1}'),
    ]


@pytest.mark.parametrize("data", [b"{", b"not json", b"\xff"])
def test_what_is_no_json_is_a_fault(data: bytes) -> None:
    with pytest.raises(UpstreamFault, match="no JSON"):
        Answering(TELLER).take([Sent("", data)])


# ---- vectors, scores and lists --------------------------------------------------------------------------------------


def test_vectors_as_base64_and_numbers() -> None:
    packed = "AACAPwAAAEA="  # 1.0, 2.0 as little-endian float32
    told = {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": packed}]}
    assert vectors(told, 2, TELLER).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert vectors(told, 2, TELLER).dtype == np.float32


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"embedding": [1, 2]}],
        [{"embedding": [1, 2]}, {"embedding": [1]}],
        [{"embedding": []}, {"embedding": []}],
        [{"embedding": [1]}, {"embedding": "AAA="}],
        [{"embedding": [1]}, {"embedding": "!"}],
        [{"embedding": [1]}, {"embedding": ["a"]}],
        [{"embedding": [1]}, {"embedding": [float("nan")]}],
        [{"index": 0, "embedding": [1]}, {"index": 7, "embedding": [1]}],
    ],
)
def test_vectors_that_are_not_whole_are_refused(rows: list[Any]) -> None:
    with pytest.raises(UpstreamFault):
        vectors({"data": rows}, 2, TELLER)


def test_scores_stand_in_the_order_of_the_documents() -> None:
    told = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0}]}
    assert scores(told, 2, TELLER) == [0.0, 0.9]
    with pytest.raises(UpstreamFault, match="2 of 3 scores"):
        scores(told, 3, TELLER)


def test_tokens_read_are_told_in_either_form() -> None:
    assert tokens_read({"usage": {"prompt_tokens": 4}}) == 4
    assert tokens_read({"usage": {"total_tokens": 5}}) == 5
    assert tokens_read({"meta": {"tokens": {"input_tokens": 6}}}) == 6
    assert tokens_read([]) == 0


@pytest.mark.parametrize(
    ("entry", "context"),
    [
        ({"max_model_len": 8}, 8),
        ({"context_length": 9}, 9),
        ({"meta": {"n_ctx": 10}}, 10),
        ({"context_window": None}, None),
    ],
)
def test_the_context_stands_where_servers_put_it(entry: dict[str, Any], context: int | None) -> None:
    assert context_of({"data": [{"id": "other"}, {"id": "big"} | entry]}, "big") == context
    with pytest.raises(LookupError):
        context_of({"data": [{"id": "other"}]}, "big")
