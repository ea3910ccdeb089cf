"""The Responses API by the real SDK and by hand: what is answered, kept, counted and refused."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import openai
import pytest
from openai import OpenAI

from server.api.responses.items import read, spoken
from tests.live import Live
from tests.making import TEXT
from tests.wire.trip import Trip

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER: Any = {"type": "function", "name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": True}
TIME: Any = {"type": "function", "name": "time", "parameters": None, "strict": None}
FIELDS = {
    *("id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id"),
    *("instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p"),
    *("presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "store"),
    *("max_output_tokens", "max_tool_calls", "background", "service_tier", "metadata", "safety_identifier"),
    *("prompt_cache_key", "user"),
}
"""Those that the Open Responses specification requires, and OpenAI's `user`."""
PDF = base64.b64encode(b"%PDF-1.7\n\xff\x00").decode()
URL = "/v1/responses"


@pytest.fixture(scope="module")
def echo(wire: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{wire.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def say(sdk: OpenAI, given: Any = "Hello", model: str = "automaton", **changes: Any) -> Any:
    return sdk.responses.create(model=model, input=given, **{"temperature": 0} | changes)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def refused(live: Live, **body: Any) -> dict[str, Any]:
    """The error object of a request that is answered 400."""
    with live.client() as client:
        reply = client.post(URL, json={"model": "echo", "input": "hi"} | body)
    assert reply.status_code == 400, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


# ---- answers --------------------------------------------------------------------------------------------------------


def test_a_whole_response_has_every_field(generating: Live) -> None:
    with generating.client() as client:
        whole = client.post(URL, json={"model": "automaton", "input": "Hello", "metadata": {"a": "b"}}).json()
    assert set(whole) == FIELDS
    assert (whole["object"], whole["status"], whole["metadata"]) == ("response", "completed", {"a": "b"})
    assert whole["completed_at"] >= whole["created_at"]
    (message,) = whole["output"]
    assert (message["type"], message["role"], message["status"]) == ("message", "assistant", "completed")
    assert message["content"] == [{"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}]
    usage = whole["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > usage["output_tokens"] > 0
    assert set(usage["input_tokens_details"]) == {"cached_tokens"}
    assert set(usage["output_tokens_details"]) == {"reasoning_tokens"}


def test_a_response_says_what_it_was_asked_with(sdk: OpenAI) -> None:
    asked: dict[str, Any] = {
        "instructions": "Be short.",
        "temperature": 0.5,
        "top_p": 0.9,
        "truncation": "auto",
        "max_output_tokens": 99,
        "parallel_tool_calls": False,
        "tools": [TIME],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]},
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    }
    told = say(sdk, **asked).model_dump()
    assert {name: told[name] for name in asked if name != "tools"} == {k: v for k, v in asked.items() if k != "tools"}
    assert {name: told["tools"][0][name] for name in TIME} == TIME
    assert (told["text"]["format"], told["service_tier"], told["background"]) == ({"type": "text"}, "default", False)


def test_the_limit_makes_a_response_incomplete(sdk: OpenAI) -> None:
    short = say(sdk, max_output_tokens=3)
    assert (short.status, short.incomplete_details.reason, short.completed_at) == (
        "incomplete",
        "max_output_tokens",
        None,
    )
    assert short.output[-1].status == "incomplete"
    assert short.usage.output_tokens == 3


def test_roles_and_parts_of_the_input_are_read(echo: OpenAI) -> None:
    parts = [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]
    conversation: Any = [
        {"type": "message", "role": "developer", "content": "be brief"},
        {"role": "system", "content": "and kind"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "said"}], "phase": "commentary"},
        {"role": "user", "content": parts},
    ]
    answer = say(echo, conversation, "echo", instructions="You repeat.")
    assert answer.output_text == "one\ntwo"
    assert answer.usage.input_tokens == 10  # a word each: nothing is lost on the way


def test_text_in_a_file_is_read_and_other_files_are_refused(wire: Live, echo: OpenAI) -> None:
    def with_file(data: str, name: str) -> Any:
        file = {"type": "input_file", "filename": name, "file_data": data}
        return [{"role": "user", "content": [{"type": "input_text", "text": "Read this."}, file]}]

    notes = base64.b64encode("é notes".encode()).decode()
    assert say(echo, with_file(f"data:text/plain;base64,{notes}", "n.txt"), "echo").output_text.endswith(
        "n.txt\n\né notes"
    )
    assert refused(wire, input=with_file(PDF, "a.pdf"))["param"] == "input[0].content[1]"
    assert refused(wire, input=with_file("§", "a.pdf"))["param"] == "input[0].content[1].file_data"


def test_a_file_that_was_uploaded_is_read_by_its_id(wire: Live, echo: OpenAI) -> None:
    file = echo.files.create(file=("kept.txt", b"kept words"), purpose="user_data")
    part: Any = {"type": "input_file", "file_id": file.id}
    assert say(echo, [{"role": "user", "content": [part]}], "echo").output_text == "kept.txt\n\nkept words"
    with wire.client() as client:
        body = {"model": "echo", "input": [{"role": "user", "content": [part | {"file_id": "file-none"}]}]}
        assert client.post(URL, json=body).status_code == 404


def test_images_are_refused_where_the_model_reads_text_only(generating: Live) -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PDF}"}
    given = [user("first"), {"role": "user", "content": [{"type": "input_text", "text": "look"}, image]}]
    error = refused(generating, model="automaton", input=given)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "input[1].content[1]")
    assert "input_image" in error["message"]


def test_log_probabilities_come_where_they_are_asked_for(sdk: OpenAI) -> None:
    answer = say(sdk, include=["message.output_text.logprobs"], top_logprobs=2)
    scored = answer.output[0].content[0].logprobs
    assert "".join(token.token for token in scored) == TEXT
    assert {len(token.top_logprobs) for token in scored} == {2}
    assert say(sdk).output[0].content[0].logprobs == []


@pytest.mark.parametrize("model", ["rebel", "rebel-llamacpp"])
def test_text_keeps_to_its_format(model: str, sdk: OpenAI) -> None:
    trip = sdk.responses.parse(model=model, input="Where?", text_format=Trip, max_output_tokens=400)
    assert isinstance(trip.output_parsed, Trip)
    assert trip.text.format is not None and trip.text.format.type == "json_schema"
    free = say(sdk, "x", "automaton", text={"format": {"type": "json_object"}})
    assert json.loads(free.output_text) == {}


# ---- tools ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
def test_a_call_and_its_output_go_round(choice: Any, sdk: OpenAI) -> None:
    first = say(
        sdk, "Weather?", "rebel", tools=[WEATHER], tool_choice=choice, max_output_tokens=400, parallel_tool_calls=False
    )
    (call,) = first.output
    assert (call.name, call.status) == ("weather", "completed")
    jsonschema_rs.validate(SCHEMA, json.loads(call.arguments))
    output = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": [{"type": "input_text", "text": "rain"}],
    }
    second = say(sdk, [output], previous_response_id=first.id, tools=[WEATHER])
    assert second.output_text == TEXT
    by_hand = say(sdk, [user("Weather?"), *first.output, output], tools=[WEATHER])
    assert by_hand.usage.input_tokens == second.usage.input_tokens


def test_tools_that_are_not_allowed_are_not_called(sdk: OpenAI) -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    answer = say(sdk, "x", "rebel", tools=[WEATHER, TIME], tool_choice=allowed, parallel_tool_calls=False)
    assert {item.name for item in answer.output} == {"time"}


def test_tools_and_items_of_unknown_types_are_passed_over_and_named(generating: Live) -> None:
    tools = [{"type": "web_search"}, TIME, {"type": "namespace", "tools": []}, {"type": "custom", "name": "patch"}]
    items = [{"type": "web_search_call", "id": "ws_1", "status": "completed"}, user("hi"), {"type": "new_thing"}]
    body = {"model": "automaton", "input": items, "tools": tools, "brand_new": 1, "include": ["other"]}
    with generating.client() as client:
        reply = client.post(URL, json=body)
    assert reply.status_code == 200
    assert reply.headers["x-ignored-params"] == "brand_new,tools,include,input[0],input[2]"
    assert [tool["name"] for tool in reply.json()["tools"]] == ["time"]


def test_the_output_of_a_call_that_nobody_made_is_refused(wire: Live) -> None:
    orphan = {"type": "function_call_output", "call_id": "call_x", "output": "42"}
    error = refused(wire, input=[user("hi"), orphan])
    assert error["message"] == "No tool call found for function call output with call_id call_x."
    assert error["param"] == "input[1].call_id"


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_a_conversation_goes_on_from_a_response(sdk: OpenAI) -> None:
    first = say(sdk, "one", instructions="Only for the first.")
    second = say(sdk, "two", previous_response_id=first.id)
    whole: Any = [user("one"), {"role": "assistant", "content": TEXT}, user("two")]
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens == say(sdk, whole).usage.input_tokens
    listed = [item.type for item in sdk.responses.input_items.list(second.id, order="asc")]
    assert listed == ["message"] * 3
    third = say(sdk, "three", previous_response_id=second.id)
    assert third.usage.input_tokens > second.usage.total_tokens


def test_a_kept_response_is_read_again_and_forgotten(sdk: OpenAI) -> None:
    kept = say(sdk)
    assert sdk.responses.retrieve(kept.id).model_dump() == kept.model_dump()
    sdk.responses.delete(kept.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        sdk.responses.retrieve(kept.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.delete(kept.id)


def test_a_response_that_is_not_stored_cannot_be_continued(sdk: OpenAI) -> None:
    gone = say(sdk, store=False)
    assert gone.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(gone.id)
    with pytest.raises(openai.BadRequestError) as missing:
        say(sdk, previous_response_id=gone.id)
    assert (missing.value.code, missing.value.param) == ("previous_response_not_found", "previous_response_id")


def test_input_items_come_in_pages(echo: OpenAI, wire: Live) -> None:
    answer = say(echo, [user(str(number)) for number in range(5)], "echo")
    newest = echo.responses.input_items.list(answer.id, limit=2)
    assert (newest.has_more, len(newest.data)) == (True, 2)
    texts = [item.content[0].text for item in echo.responses.input_items.list(answer.id, limit=2, order="asc")]  # type: ignore[union-attr]  # messages
    assert texts == ["0", "1", "2", "3", "4"]
    rest = echo.responses.input_items.list(answer.id, after=newest.last_id)
    assert [item.content[0].text for item in rest.data] == ["2", "1", "0"]  # type: ignore[union-attr]
    with wire.client() as client:
        wrong = client.get(f"{URL}/{answer.id}/input_items?after=msg_none").json()
        assert wrong["error"]["param"] == "after"
        assert client.get(f"{URL}/{answer.id}/input_items?limit=0").status_code == 400


def test_an_item_is_referred_to_by_its_id(echo: OpenAI, wire: Live) -> None:
    said = say(echo, [user("remembered")], "echo")
    item = echo.responses.input_items.list(said.id).data[0]
    again: Any = [{"type": "item_reference", "id": item.id}]
    assert say(echo, again, "echo").output_text == "remembered"
    assert refused(wire, input=[{"id": "msg_none"}])["message"] == "Item with id 'msg_none' not found."


def test_only_background_responses_are_cancelled(sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        sdk.responses.cancel(say(sdk).id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.cancel("resp_none")


# ---- long conversations ---------------------------------------------------------------------------------------------


def test_a_conversation_too_long_is_refused_or_cut(wire: Live, echo: OpenAI) -> None:
    long = [{"role": "system", "content": "s"}, *(user("word " * 90 + str(number)) for number in range(8))]
    error = refused(wire, input=long)
    assert error["code"] == "context_length_exceeded"
    assert "maximum context length is 500" in error["message"]
    cut = say(echo, long, "echo", truncation="auto")
    assert cut.output_text.endswith("7")
    assert 90 < cut.usage.input_tokens <= 500
    assert refused(wire, input="word " * 600, truncation="auto")["code"] == "context_length_exceeded"


def test_a_conversation_is_compacted_and_goes_on(sdk: OpenAI, generating: Live) -> None:
    long: Any = [user("We launch on Tuesday."), {"role": "assistant", "content": "Noted."}]
    short = sdk.responses.compact(model="automaton", input=long)
    output: Any = short.model_dump(warnings=False)["output"]  # the SDK types it as the model's, the user's it is
    assert (short.object, [item["type"] for item in output]) == ("response.compaction", ["message", "compaction"])
    assert (output[0]["role"], output[0]["content"][0]["text"]) == ("user", "We launch on Tuesday.")
    assert short.usage.output_tokens > 0
    after: Any = [*output, user("Go on.")]
    assert say(sdk, after).output_text == TEXT
    forged = [{"type": "compaction", "encrypted_content": "gAAAA"}, user("Go on.")]
    assert refused(generating, model="automaton", input=forged)["param"] == "input[0].encrypted_content"
    with generating.client() as client:
        assert client.post(f"{URL}/compact", json={"input": "x"}).json()["error"]["param"] == "model"


def test_tokens_are_counted_beforehand(sdk: OpenAI) -> None:
    asked: dict[str, Any] = {"model": "automaton", "input": "How many?", "instructions": "Count.", "tools": [WEATHER]}
    counted = sdk.responses.input_tokens.count(**asked)
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == sdk.responses.create(**asked).usage.input_tokens  # type: ignore[union-attr]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"tools": [{"type": "function", "name": ""}]}, "tools[0].name"),
        ({"tools": [TIME, {"name": "x"}]}, "tools[1].type"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "name": "no"}}, "tool_choice"),
        ({"tools": [TIME], "tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}},
            "text.format.schema",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ],
)
def test_a_bad_field_is_named_as_this_wire_calls_it(changes: dict[str, Any], param: str, generating: Live) -> None:
    error = refused(generating, **{"model": "automaton"} | changes)
    assert error["param"] == param
    assert not any(other in error["message"] for other in ("response_format", "messages[", "max_completion_tokens"))


def test_what_a_model_cannot_honour_is_refused_by_this_wires_names(wire: Live) -> None:
    error = refused(wire, text={"format": {"type": "json_object"}})
    assert error["param"] == "text.format"
    assert "`text.format`" in error["message"]


def test_a_key_is_needed_for_every_route(keyed: Live) -> None:
    routes = [("POST", URL), ("POST", f"{URL}/compact"), ("GET", f"{URL}/resp_x"), ("DELETE", f"{URL}/resp_x")]
    with keyed.client() as nobody, keyed.client("sk-retrieve-12345") as other, keyed.client("sk-infer-12345") as own:
        assert [nobody.request(method, route).status_code for method, route in routes] == [401] * 4
        assert [other.request(method, route).status_code for method, route in routes] == [403] * 4
        assert own.get(f"{URL}/resp_x").status_code == 404


def test_a_response_is_its_keys_own(keyed: Live) -> None:
    with keyed.client("sk-infer-12345") as own, keyed.client("sk-admin-12345") as other:
        name = own.post(URL, json={"model": "echo", "input": "mine"}).json()["id"]
        assert own.get(f"{URL}/{name}").status_code == 200
        assert other.get(f"{URL}/{name}").status_code == 404
        assert other.delete(f"{URL}/{name}").status_code == 404
        going_on = {"model": "echo", "input": "and?", "previous_response_id": name}
        assert other.post(URL, json=going_on).json()["error"]["code"] == "previous_response_not_found"
        assert own.post(URL, json=going_on).status_code == 200


def test_an_image_reaches_a_model_that_reads_parts() -> None:
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"}
    given = read([{"role": "user", "content": [{"type": "input_text", "text": "look"}, image]}])
    (message,) = spoken(None, [], given.with_found({}), {}).messages
    assert message.text == "look"
    assert message.parts == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
