"""Streamed responses: the events, their order and numbers, and how a fault in the middle is told."""

import json
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from server.api.responses.events import ResponseEvent
from server.api.responses.items import unsealed
from server.api.responses.wire import (
    InputTokensDetails,
    OutputTokensDetails,
    ReasoningConfig,
    ReasoningItem,
    Response,
    ResponseUsage,
    TextConfig,
)
from server.api.responses.writing import Writer
from server.chat import Part
from server.models.tool_formats import CallArguments, CallStart
from tests.live import Live, wait_for
from tests.making import TEXT
from tests.wire.trip import Trip

URL = "/v1/responses"
TIME: Any = {"type": "function", "name": "time", "parameters": {"type": "object", "properties": {}}}


def frames(live: Live, **body: Any) -> list[tuple[str, Any]]:
    """Pairs of the event line and the data, as they came; the last is ("", "[DONE]")."""
    with live.client() as client:
        text = client.post(URL, json={"model": "automaton", "input": "Hello", "stream": True} | body).text
    read = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        name, _, data = frame.rpartition("data: ")
        read.append((name.removeprefix("event: ").strip(), data if data == "[DONE]" else json.loads(data)))
    return read


# ---- over the wire --------------------------------------------------------------------------------------------------


def test_events_come_in_openais_order_numbered_and_named(generating: Live) -> None:
    *events, done = frames(generating)
    assert done == ("", "[DONE]")
    assert [name for name, _ in events] == [data["type"] for _, data in events]
    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    deltas = sum(name == "response.output_text.delta" for name, _ in events)
    assert [name for name, _ in events] == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *["response.output_text.delta"] * deltas,
        *("response.output_text.done", "response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]
    said = [data for name, data in events if name == "response.output_text.delta"]
    assert "".join(data["delta"] for data in said) == TEXT
    assert {(data["item_id"], data["output_index"], data["content_index"]) for data in said} == {
        (events[2][1]["item"]["id"], 0, 0)
    }
    first, last = events[0][1]["response"], events[-1][1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert (last["status"], last["id"]) == ("completed", first["id"])
    assert last["output"][0] == events[-2][1]["item"]
    assert last["usage"]["output_tokens"] == last["usage"]["total_tokens"] - last["usage"]["input_tokens"]


def test_a_streamed_response_is_kept_before_it_ends(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="automaton", input="Hello") as stream:
        for event in stream:
            if event.type == "response.completed":
                assert sdk.responses.retrieve(event.response.id).output_text == TEXT
        assert stream.get_final_response().output_text == TEXT


def test_a_streamed_answer_cut_short_ends_incomplete(generating: Live) -> None:
    name, data = frames(generating, max_output_tokens=2)[-2]
    assert name == "response.incomplete"
    assert data["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("model", ["rebel", "rebel-llamacpp"])
def test_calls_stream_argument_by_argument(model: str, generating: Live, sdk: OpenAI) -> None:
    asked: dict[str, Any] = {"model": model, "tools": [TIME], "tool_choice": "required", "parallel_tool_calls": False}
    events = [data for _, data in frames(generating, **asked)[:-1]]
    added = next(data["item"] for data in events if data["type"] == "response.output_item.added")
    assert (added["type"], added["name"], added["arguments"], added["status"]) == (
        "function_call",
        "time",
        "",
        "in_progress",
    )
    deltas = [data["delta"] for data in events if data["type"] == "response.function_call_arguments.delta"]
    done = next(data for data in events if data["type"] == "response.function_call_arguments.done")
    assert "".join(deltas) == done["arguments"] == "{}"
    finished = next(data["item"] for data in events if data["type"] == "response.output_item.done")
    assert finished == added | {"arguments": "{}", "status": "completed"}
    with sdk.responses.stream(input="x", **asked) as stream:
        assert [item.type for item in stream.get_final_response().output] == ["function_call"]


def test_structured_text_streams_through_the_helper(sdk: OpenAI) -> None:
    with sdk.responses.stream(model="rebel", input="Where?", text_format=Trip) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Trip)


def test_log_probabilities_stream_with_their_text(generating: Live) -> None:
    events = frames(generating, include=["message.output_text.logprobs"], max_output_tokens=3)[:-1]
    deltas = [data for name, data in events if name == "response.output_text.delta"]
    assert [token["token"] for data in deltas for token in data["logprobs"]] == ["Hello", " this", " is"]
    done = next(data for name, data in events if name == "response.output_text.done")
    assert len(done["logprobs"]) == 3


def test_a_fault_before_the_answer_is_an_http_error(generating: Live) -> None:
    with generating.client() as client:
        reply = client.post(URL, json={"model": "automaton", "input": "long " * 3000, "stream": True})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_fault_in_the_middle_is_told_and_the_response_failed(generating: Live, sdk: OpenAI) -> None:
    *_, error, failed, done = frames(generating, model="late", input="one two three")
    assert (error[0], failed[0], done[1]) == ("error", "response.failed", "[DONE]")
    assert error[1]["code"] == error[1]["error"]["code"] == "deadline_exceeded"
    assert failed[1]["response"]["status"] == "failed"
    assert failed[1]["response"]["error"]["code"] == "deadline_exceeded"
    assert failed[1]["sequence_number"] == error[1]["sequence_number"] + 1
    with pytest.raises(openai.APIError, match="deadline"):
        list(sdk.responses.create(model="late", input="one two three", stream=True))


def test_a_client_that_leaves_a_stream_frees_the_model(generating: Live) -> None:
    body = {"model": "rebel", "input": "x", "stream": True, "max_output_tokens": 1500}
    with generating.client() as client, client.stream("POST", URL, json=body) as reply:
        next(reply.iter_lines())

    def idle() -> bool:
        health = httpx.get(f"{generating.url}/health", timeout=5, trust_env=False).json()
        return bool(health["models"]["rebel"]["in_flight"] == 0)

    wait_for(idle, "the model stayed busy", generating.log, generating.process)


def test_what_an_assistant_quotes_is_annotated(starter: Live) -> None:
    question = "How do I add my own documents?"
    with starter.client() as client:
        model = next(each["id"] for each in client.get("/v1/models").json()["data"] if each["knowledge"])
    events = frames(starter, model=model, input=question)[:-1]
    added = [data for name, data in events if name == "response.output_text.annotation.added"]
    text = events[-1][1]["response"]["output"][0]["content"][0]
    assert added
    assert [data["annotation"] for data in added] == text["annotations"]
    assert [data["annotation_index"] for data in added] == list(range(len(added)))
    for cited in text["annotations"]:
        assert (cited["type"], cited["index"]) == ("file_citation", cited["end_index"])
        assert text["text"][cited["start_index"] : cited["end_index"]]


# ---- what no model of the tests does --------------------------------------------------------------------------------


def writer(**how: bool) -> Writer:
    asked = Response(
        *("resp_1", 0, "in_progress", "m", None, None, [], "auto", True, TextConfig({"type": "text"})),
        *(ReasoningConfig(None, None), 1.0, 1.0, 0.0, 0.0, 0, None, None, "disabled", True, {}, None, None, None),
    )
    return Writer(asked, **how)


USAGE = ResponseUsage(1, InputTokensDetails(), 1, OutputTokensDetails(), 2)


def named(events: list[ResponseEvent]) -> list[str]:
    return [event.named().removeprefix("response.") for event in events]


def test_reasoning_is_an_item_before_the_message() -> None:
    written = writer(seal=True)
    events = written.add([Part("", 1, reasoning="let me"), Part("", 1, reasoning=" see"), Part("Four.", 1)])
    events += written.add([Part("", 0, finish_reason="stop")]) + written.end(USAGE)
    assert named(events)[:7] == [
        *("output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta"),
        *("reasoning_text.done", "content_part.done", "output_item.done"),
    ]
    thought, message = written.response.output
    assert isinstance(thought, ReasoningItem)
    assert [part.text for part in thought.content] == ["let me see"]
    assert unsealed(str(thought.encrypted_content), "input[0]") == "let me see"
    assert message.content[0].text == "Four."  # type: ignore[union-attr]  # a message


def test_reasoning_stands_in_the_summary_that_was_asked_for() -> None:
    written = writer(summary=True)
    events = written.add([Part("", 1, reasoning="hm"), Part("Yes.", 1, finish_reason="stop")]) + written.end(USAGE)
    assert named(events)[:6] == [
        *("output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done", "output_item.done"),
    ]
    thought = written.response.output[0]
    assert isinstance(thought, ReasoningItem)
    assert ([part.text for part in thought.summary], thought.content) == (["hm"], [])


def test_text_and_calls_are_items_in_the_order_they_came() -> None:
    written = writer()
    calls = [
        CallStart(0, "a"),
        CallArguments(0, "{}"),
        CallStart(1, "b"),
        CallArguments(1, '{"x"'),
        CallArguments(1, ":1}"),
    ]
    written.add([Part("First", 1), Part("", 3, calls=calls), Part("then", 1, finish_reason="tool_calls")])
    written.end(USAGE)
    assert [item.__struct_config__.tag for item in written.response.output] == [
        *("message", "function_call", "function_call", "message")
    ]
    assert [item.arguments for item in written.response.output[1:3]] == ["{}", '{"x":1}']  # type: ignore[union-attr]
    assert len({item.call_id for item in written.response.output[1:3]}) == 2  # type: ignore[union-attr]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    written = writer()
    events = written.begin() + written.add([Part("", 1, finish_reason="stop")]) + written.end(USAGE)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert written.response.output[0].content[0].text == ""  # type: ignore[union-attr]
