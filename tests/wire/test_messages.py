"""Anthropic's Messages wire: the exact blocks and events that its SDKs and Claude Code read, over raw HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.live import Live
from tests.making import TEXT

HELLO: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def client(generating: Live) -> Iterator[httpx.Client]:
    with generating.client() as client:
        yield client


def asked(**changes: Any) -> dict[str, Any]:
    return {"model": "automaton", "messages": HELLO, "max_tokens": 100, "temperature": 0} | changes


def said(client: httpx.Client, **changes: Any) -> Any:
    reply = client.post("/v1/messages", json=asked(**changes))
    assert reply.status_code == 200, reply.text
    return reply.json()


def counted(client: httpx.Client, **changes: Any) -> int:
    body = asked(**changes)
    del body["max_tokens"], body["temperature"]
    reply = client.post("/v1/messages/count_tokens", json=body)
    assert reply.status_code == 200, reply.text
    tokens: int = reply.json()["input_tokens"]
    return tokens


def prompt_of(usage: dict[str, Any]) -> int:
    """All tokens of the prompt, as Anthropic counts them."""
    total: int = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
    return total


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream, each of which is named as its data's type says."""
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = []
    for block in reply.text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def streamed(client: httpx.Client, **changes: Any) -> list[dict[str, Any]]:
    reply = client.post("/v1/messages", json=asked(stream=True, **changes))
    assert reply.status_code == 200, reply.text
    return events(reply)


# ---- text -----------------------------------------------------------------------------------------------------------


def test_a_whole_answer_has_every_field_of_anthropics(client: httpx.Client) -> None:
    reply = client.post("/v1/messages", json=asked())
    answer = reply.json()
    assert answer.pop("id").startswith("msg_")
    usage = answer.pop("usage")
    assert answer == {
        "type": "message",
        "role": "assistant",
        "model": "automaton",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert usage["output_tokens"] > 40 and usage["output_tokens_details"] == {"thinking_tokens": 0}
    assert reply.headers["request-id"] == reply.headers["x-request-id"]


def test_a_stream_has_anthropics_events_in_their_order(wire: Live) -> None:
    with wire.client() as client:
        found = streamed(client, model="echo", messages=[{"role": "user", "content": "Hi you"}])
    start = found[0].pop("message")
    assert start.pop("id").startswith("msg_")
    usage = {
        "input_tokens": 2,
        "output_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 0},
    }
    assert start == {
        "type": "message",
        "role": "assistant",
        "model": "echo",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    assert found == [
        {"type": "message_start"},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " you"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage | {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]


def test_the_limit_and_stop_sequences_are_told_apart(client: httpx.Client) -> None:
    short = said(client, max_tokens=3)
    assert (short["stop_reason"], short["usage"]["output_tokens"]) == ("max_tokens", 3)
    before = TEXT[: TEXT.index("very small")]
    stopped = said(client, stop_sequences=["never", "very sm"])
    assert stopped["content"] == [{"type": "text", "text": before}]
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", "very sm")
    *_, ended, _ = streamed(client, stop_sequences=["never", "very sm"])
    assert ended["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "very sm"}


def test_no_tokens_read_the_prompt_and_say_nothing(client: httpx.Client) -> None:
    answer = said(client, max_tokens=0)
    assert (answer["content"], answer["stop_reason"], answer["usage"]["output_tokens"]) == ([], "max_tokens", 0)


def test_an_answer_that_is_begun_goes_on(client: httpx.Client) -> None:
    begun = TEXT[: TEXT.index(" small")]
    answer = said(client, messages=[*HELLO, {"role": "assistant", "content": begun}])
    assert answer["content"] == [{"type": "text", "text": TEXT.removeprefix(begun)}]


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_a_count_is_what_the_prompt_costs(client: httpx.Client) -> None:
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    asked: dict[str, Any] = {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [*HELLO, {"role": "system", "content": "Now."}, {"role": "assistant", "content": "Hel"}],
        "tools": [tool],
    }
    tokens = counted(client, **asked)
    first = said(client, max_tokens=1, **asked)["usage"]
    assert first["input_tokens"] == prompt_of(first) == tokens
    again = said(client, max_tokens=1, **asked)["usage"]
    assert again["cache_read_input_tokens"] > 0
    assert prompt_of(again) == tokens
    assert prompt_of(streamed(client, max_tokens=1, **asked)[-2]["usage"]) == tokens
    assert counted(client, messages=[{"role": "user", "content": "long " * 3000}]) > 2048


def test_system_stands_anywhere_and_anyhow(client: httpx.Client) -> None:
    def tokens(system: Any, *late: str) -> int:
        return counted(
            client, system=system, messages=[*HELLO, *({"role": "system", "content": text} for text in late)]
        )

    assert tokens("Be brief.") == tokens([{"type": "text", "text": "Be brief."}]) > tokens(None)
    assert tokens("Be brief.", "Be\nkind.") == tokens("Be brief.", "Be", "kind.") > tokens("Be brief.")
    answer = said(client, messages=[*HELLO, {"role": "system", "content": [{"type": "text", "text": "Be kind."}]}])
    assert answer["content"] == [{"type": "text", "text": TEXT}]


def test_a_line_that_changes_every_time_is_kept_out_of_the_prompt(client: httpx.Client) -> None:
    def tokens(*texts: str) -> int:
        return counted(client, system=[{"type": "text", "text": text} for text in texts])

    billing = "x-anthropic-billing-header: cc_version=2.1.197.fa0; cc_entrypoint=cli;"
    assert tokens(billing, "Be brief.") == tokens("Be brief.")
    assert tokens(f"{billing}\nBe brief.") == tokens("Be brief.")


def test_turns_come_back_as_they_were_told(client: httpx.Client) -> None:
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
                {"type": "redacted_thinking", "data": "sealed"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_abcdefgh1", "name": "look", "input": {"at": "it"}},
            ],
        },
    ]
    result = {"type": "tool_result", "tool_use_id": "toolu_abcdefgh1", "content": "nothing"}
    assert counted(client, messages=[*turns, {"role": "user", "content": [result]}]) > counted(
        client, messages=turns[:1]
    )
    late = [{"type": "text", "text": "And?"}, result]
    early = [result, {"type": "text", "text": "And?"}]
    assert counted(client, messages=[*turns, {"role": "user", "content": late}]) == counted(
        client, messages=[*turns, {"role": "user", "content": early}]
    )
    failed = result | {"is_error": True, "content": [{"type": "text", "text": "nothing"}]}
    written = result | {"content": "Error: nothing"}
    assert counted(client, messages=[*turns, {"role": "user", "content": [failed]}]) == counted(
        client, messages=[*turns, {"role": "user", "content": [written]}]
    )
    assert said(client, messages=[*turns, {"role": "user", "content": [failed]}])["content"][0]["text"] == TEXT


def test_documents_are_read_as_text_and_pictures_refused(client: httpx.Client) -> None:
    def tokens(block: dict[str, Any]) -> int:
        return counted(client, messages=[{"role": "user", "content": [block]}])

    plain = tokens({"type": "text", "text": "<document>\nA\nb\n</document>"})
    assert tokens({"type": "document", "title": "A", "source": {"type": "text", "data": "b"}}) == plain
    inner = [{"type": "text", "text": "b"}]
    assert tokens({"type": "document", "title": "A", "source": {"type": "content", "content": inner}}) == plain
    assert tokens({"type": "search_result", "title": "A", "source": "b", "content": []}) == plain
    picture: dict[str, Any] = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    for content in ([picture], [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [picture]}]):
        reply = client.post("/v1/messages", json=asked(messages=[{"role": "user", "content": content}]))
        assert reply.status_code == 400
        assert "`image`" in reply.json()["error"]["message"] and "messages[0]" in reply.json()["error"]["message"]


# ---- thinking -------------------------------------------------------------------------------------------------------

THINKS: Any = [*HELLO, {"role": "assistant", "content": "<think>"}]
"""The prompt ends inside reasoning, so all that random weights say is that."""


def test_thinking_is_a_block_of_its_own_with_a_signature(client: httpx.Client) -> None:
    wanted = {"model": "rebel", "messages": THINKS, "max_tokens": 6, "thinking": {"type": "enabled"}}
    (block,) = said(client, **wanted)["content"]
    assert block["type"] == "thinking" and block["thinking"] and block["signature"]
    found = streamed(client, **wanted)
    start, *deltas, stop = [event for event in found if event["type"].startswith("content_block")]
    assert start["content_block"] == {"type": "thinking", "thinking": "", "signature": ""}
    *thoughts, signed = [event["delta"] for event in deltas]
    assert "".join(thought["thinking"] for thought in thoughts) == block["thinking"]
    assert signed == {"type": "signature_delta", "signature": block["signature"]}
    assert stop == {"type": "content_block_stop", "index": 0}
    assert found[-2]["usage"]["output_tokens_details"]["thinking_tokens"] > 0


def test_thinking_that_was_not_asked_for_stays_away(client: httpx.Client) -> None:
    wanted: dict[str, Any] = {"model": "rebel", "messages": THINKS, "max_tokens": 6}
    hidden = said(client, **wanted)
    assert hidden["content"] == [] and hidden["usage"]["output_tokens"] == 6
    assert said(client, thinking={"type": "disabled"}, **wanted)["content"] == []
    (omitted,) = said(client, thinking={"type": "adaptive", "display": "omitted"}, **wanted)["content"]
    assert omitted["thinking"] == "" and omitted["signature"]


def test_thinking_turns_the_templates_own_switch(client: httpx.Client) -> None:
    off = counted(client)
    assert counted(client, thinking={"type": "disabled"}) == off
    assert counted(client, thinking={"type": "enabled", "budget_tokens": 1024}) < off  # without an empty block of it


# ---- knowledge ------------------------------------------------------------------------------------------------------


def test_a_block_of_text_has_the_citations_of_what_it_quotes(starter: Live) -> None:
    question: Any = [{"role": "user", "content": "How do I change the port?"}]
    with starter.client() as client:
        answer = said(client, model="starter", messages=question)
        found = streamed(client, model="starter", messages=question)
        cited = [block for block in answer["content"] if "citations" in block]
        location = cited[0]["citations"][0]
        file = location["file_id"]
    assert location["type"] == "char_location"
    assert location["cited_text"] in "".join(block["text"] for block in answer["content"])
    assert location["end_char_index"] - location["start_char_index"] == len(location["cited_text"])
    assert file and location["document_title"]
    citations = [e["delta"]["citation"] for e in found if e.get("delta", {}).get("type") == "citations_delta"]
    assert citations == [each for block in cited for each in block["citations"]]


# ---- models ---------------------------------------------------------------------------------------------------------


def test_models_are_listed_as_anthropics_clients_read_them(wire: Live) -> None:
    with wire.client() as client:
        listed = client.get("/v1/models", headers={"anthropic-version": "2023-06-01"}).json()
        plain = client.get("/v1/models").json()
    assert listed["data"][0].pop("created_at").endswith("Z")
    assert listed["data"][0] == {"type": "model", "id": "echo", "display_name": "echo", "max_input_tokens": 500}
    assert (listed["has_more"], listed["first_id"], listed["last_id"]) == (False, "echo", listed["data"][-1]["id"])
    assert [each["id"] for each in listed["data"]] == [each["id"] for each in plain["data"]]


def test_an_alias_with_a_star_is_every_id_that_begins_so(wire: Live) -> None:
    name = "claude-sonnet-4-5-20250929"
    with wire.client() as client:
        assert said(client, model=name)["model"] == name
        one = client.get(f"/v1/models/{name}", headers={"anthropic-version": "2023-06-01"}).json()
        longer = client.get("/v1/models/claude-haiku-4-5-20251001").json()
        ids = [each["id"] for each in client.get("/v1/models").json()["data"]]
    assert (one["id"], one["max_input_tokens"]) == (name, 500)
    assert (longer["id"], longer["root"]) == ("claude-haiku-4-5-20251001", "slow")
    assert not any(each.startswith("claude") for each in ids)


def test_what_every_client_sends_is_taken(wire: Live) -> None:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "a-2025-01-01,b", "x-api-key": "any"}
    with wire.client() as client:
        for route in ("/v1/messages?beta=true", "/messages"):
            assert client.post(route, json=asked(model="echo"), headers=headers).status_code == 200
        assert client.head("/").status_code == 200
