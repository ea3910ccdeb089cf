"""Bodies that are odd, huge or made to cost much: a clear answer soon, and the others are served meanwhile."""

import gzip
import json
from typing import Any

import pytest

from tests.hostile.raw import CHAT, Raw, chat, exchange, get, head, post
from tests.live import Live

MESSAGES = b'"messages": [{"role": "user", "content": "hi"}]'


def body(*more: bytes) -> bytes:
    return b'{"model": "echo", ' + b", ".join((MESSAGES, *more)) + b"}"


NOT_JSON = {
    "empty": b"",
    "white space": b"  \n ",
    "cut short": body()[:-5],
    "two values": body() + body(),
    "a byte order mark": b"\xef\xbb\xbf" + body(),
    "UTF-16": body().decode().encode("utf-16"),
    "invalid UTF-8": body(b'"user": "\xff\xfe"'),
    "overlong UTF-8": body(b'"user": "\xc0\xaf"'),
    "half a surrogate": body(b'"user": "\\ud800"'),
    "a control character": body(b'"user": "a\x00b"'),
    "NaN": body(b'"temperature": NaN'),
    "Infinity": body(b'"temperature": -Infinity'),
    "a comment": body(b'"temperature": 1 /* hot */'),
    "a trailing comma": body()[:-1] + b",}",
    "single quotes": b"{'model': 'echo'}",
    "a bare word": b"echo",
    "an array": b"[" + body() + b"]",
    "a million zeros": b"[" + b"0," * 100_000 + b"0]",
    "null": b"null",
    "a number": b"12",
    "deep arrays": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
    "a form": b"model=echo&messages=hi",
    "XML": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
}


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_no_json_object_is_refused(target: Live, name: str) -> None:
    answer = exchange(target, post(NOT_JSON[name]))
    assert answer.status == 400, answer
    assert answer.error["type"] == "invalid_request_error"


BAD_FIELDS: dict[str, tuple[str, Any]] = {
    "n far too large": ("n", 10**9),
    "n of nothing": ("n", 0),
    "n below nothing": ("n", -1),
    "a fraction of an answer": ("n", 1.5),
    "max_tokens of 64 bits": ("max_tokens", 2**63),
    "max_tokens past 64 bits": ("max_tokens", 2**64 + 1),
    "max_tokens of a thousand digits": ("max_tokens", int("9" * 1000)),
    "max_tokens below nothing": ("max_tokens", -1),
    "max_tokens as text": ("max_tokens", "12"),
    "a seed past 64 bits": ("seed", 2**70),
    "a temperature past all": ("temperature", 1e308),
    "a temperature below nothing": ("temperature", -1),
    "top_p over all": ("top_p", 2),
    "a penalty past all": ("presence_penalty", 1e9),
    "stop strings by the hundred": ("stop", ["a"] * 100),
    "an empty stop string": ("stop", ""),
    "stop of numbers": ("stop", [1, 2]),
    "stop as an object": ("stop", {"a": 1}),
    "messages as text": ("messages", "hi"),
    "no messages": ("messages", []),
    "messages of nothing": ("messages", [None]),
    "a message without a role": ("messages", [{"content": "hi"}]),
    "a role of another kind": ("messages", [{"role": 7, "content": "hi"}]),
    "content as a number": ("messages", [{"role": "user", "content": 7}]),
    "a model of another kind": ("model", {"id": "echo"}),
    "an empty model": ("model", ""),
    "stream as text": ("stream", "yes"),
    "tools as text": ("tools", "all"),
    "tools of nothing": ("tools", [None]),
    "a bias without end": ("logit_bias", {"1": 1e9}),
    "a bias for no token": ("logit_bias", {"one": 1}),
    "a bias for a token past all": ("logit_bias", {"9" * 30: 1}),
    "a format of no kind": ("response_format", {"type": "yaml"}),
    "a format as text": ("response_format", "json"),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_field_out_of_bounds_is_named(target: Live, name: str) -> None:
    field, value = BAD_FIELDS[name]
    answer = exchange(target, post(chat("automaton", max_tokens=4) if field == "" else chat_with(field, value)))
    assert answer.status == 400, answer
    assert field in str(answer.error["param"]) or field in answer.error["message"]


def chat_with(field: str, value: Any) -> bytes:
    whole = json.loads(chat("automaton", max_tokens=4)) | {field: value}
    return json.dumps(whole).encode()


def test_a_number_past_all_numbers(target: Live) -> None:
    answer = exchange(target, post(body(b'"temperature": 1e999')))
    assert answer.status == 400


def test_of_two_fields_of_one_name_the_last_counts(target: Live) -> None:
    answer = exchange(target, post(body(b'"stream": true', b'"stream": false')))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "media", ["text/plain", "multipart/form-data; boundary=x", "application/xml", "image/png", "a" * 999]
)
def test_another_kind_of_body_is_refused(target: Live, media: str) -> None:
    answer = exchange(target, head("POST", CHAT, f"Content-Type: {media}", f"Content-Length: {len(chat())}") + chat())
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_a_packed_body_is_not_unpacked(target: Live, encoding: str) -> None:
    """A bomb of ten megabytes of white space in ten kilobytes is one of these."""
    answer = exchange(target, post(gzip.compress(b" " * 10**7), f"Content-Encoding: {encoding}"))
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "model", ["a\r\nSet-Cookie: a=b", "a\n\n<script>", "../../etc/passwd", "a\x1b[2J", "é" * 5000, "\u202e"]
)
def test_what_is_repeated_from_a_request_ends_no_header_and_no_line_of_the_log(target: Live, model: str) -> None:
    answer = exchange(target, post(chat(model)))
    assert answer.status == 404
    assert answer.error["code"] == "model_not_found"
    assert "set-cookie" not in answer.headers
    log = target.log.read_text(encoding="utf-8")
    assert "\nSet-Cookie" not in log
    assert "\x1b[2J" not in log


def test_names_of_unknown_fields_are_made_safe(target: Live) -> None:
    odd = {"a\r\nSet-Cookie: a=b": 1, "é": 2, ",": 3, "x" * 9999: 4} | {f"f{number}": 1 for number in range(500)}
    answer = exchange(target, post(chat(**odd)))
    assert answer.status == 200
    assert "set-cookie" not in answer.headers
    assert len(answer.headers["x-ignored-params"]) < 2048


HEAVY = {
    "ten thousand messages": chat_with("messages", [{"role": "user", "content": "a"}] * 7000),
    "a text of 200 KB": chat("automaton", "word " * 40_000),
    "a line of 200 KB": chat("automaton", "a" * 200_000),
    "two thousand tools": chat_with(
        "tools", [{"type": "function", "function": {"name": f"tool_{number}"}} for number in range(2000)]
    ),
    "a bias for ten thousand tokens": chat_with("logit_bias", {str(number): 1 for number in range(10_000)}),
    "parts by the thousand": chat_with(
        "messages", [{"role": "user", "content": [{"type": "text", "text": "a"}] * 5000}]
    ),
}


@pytest.mark.parametrize("name", HEAVY)
def test_much_of_everything_is_answered_soon(target: Live, name: str) -> None:
    with Raw(target) as heavy:
        heavy.send(post(HEAVY[name]))
        assert exchange(target, get()).status == 200
        assert heavy.answer().status in (200, 400)


def schema(of: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "bomb", "schema": of}}


def nested(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        found = {"type": "object", "properties": {"a": found, "b": found}, "required": ["a", "b"]}
    return found


BOMBS = {
    "a regex that doubles": {"type": "regex", "pattern": "((((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99})"},
    "a regex that backtracks": {"type": "regex", "pattern": "(a+)+$"},
    "a regex of 100 KB": {"type": "regex", "pattern": "(a|b)" * 20_000},
    "a regex without end": {"type": "regex", "pattern": "(((("},
    "a grammar of itself": {"type": "lark", "grammar": "start: start start | start"},
    "a grammar without rules": {"type": "lark", "grammar": "???"},
    "a grammar of ten thousand rules": {
        "type": "lark",
        "grammar": "start: r0\n" + "\n".join(f"r{n}: r{n + 1} r{n + 1}" for n in range(5000)) + '\nr5000: "a"',
    },
    "a schema of itself": schema({"$ref": "#"}),
    "a schema that refers outside": schema({"$ref": "file:///etc/passwd"}),
    "a schema that refers to the network": schema({"$ref": "http://127.0.0.1:1/schema"}),
    "a schema that doubles": schema(nested(11)),
    "a schema of a million items": schema({"type": "array", "minItems": 10**6, "items": {"type": "string"}}),
    "a schema of long texts": schema({"type": "string", "minLength": 10**9}),
    "a schema of ten thousand fields": schema(
        {"type": "object", "properties": {f"field_{number}": {"type": "integer"} for number in range(5000)}}
    ),
    "a schema with a pattern that doubles": schema({"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"}),
    "a schema of another kind": schema({"type": 7}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_format_made_to_cost_much_costs_nobody_else(target: Live, name: str) -> None:
    with Raw(target) as bomb:
        bomb.send(post(chat_with("response_format", BOMBS[name])))
        other = exchange(target, post(chat("automaton", max_tokens=2)))
        assert other.status == 200
        answer = bomb.answer()
        assert answer.status in (200, 400), answer
        if answer.status == 400:
            assert "response_format" in str(answer.error["param"])


def test_an_answer_before_a_short_body_leaves_the_connection_to_the_next_request(keyed: Live) -> None:
    refused = head("POST", CHAT, "authorization: Bearer nobody-12345", "content-length: 20")
    with Raw(keyed) as raw:
        for _ in range(3):
            first = raw.send(refused).answer()
            assert first.status == 401 and "connection" not in first.headers
            raw.send(b"x" * 20)
        assert raw.send(get()).answer().status == 200


@pytest.mark.parametrize("told", ["content-length: 10000000", "transfer-encoding: chunked"])
def test_an_answer_before_a_long_body_says_that_it_is_the_last(keyed: Live, told: str) -> None:
    with Raw(keyed) as raw:
        refused = raw.send(head("POST", CHAT, "authorization: Bearer nobody-12345", told)).answer()
        assert (refused.status, refused.headers["connection"]) == (401, "close")
        assert raw.closed


def test_a_client_that_waits_to_send_its_body_hears_that_the_answer_is_the_last(keyed: Live) -> None:
    waiting = ("authorization: Bearer nobody-12345", "content-length: 20", "expect: 100-continue")
    with Raw(keyed) as raw:
        refused = raw.send(head("POST", CHAT, *waiting)).answer()
        assert (refused.status, refused.headers["connection"]) == (401, "close")
