"""The chat cases of the openai Python SDK, the same for each of its major versions."""

import asyncio
import json
from typing import Any

import openai
from cases import HELLO, KEY, LONG, TEXT, TRIP, URL, case, freed, trip
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field

sdk = OpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60)
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": TRIP}}
TIME: Any = {"type": "function", "function": {"name": "time"}}


class Trip(BaseModel):
    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)


def say(model: str = "automaton", **changes: Any) -> Any:
    return sdk.chat.completions.create(**{"model": model, "messages": HELLO, "temperature": 0} | changes)


def refused(kind: type[openai.APIStatusError], **changes: Any) -> Any:
    """The body's error of a request that has to be refused."""
    try:
        say(**changes)
    except kind as error:
        return error
    raise AssertionError(f"not refused: {changes}")


# ---- text -----------------------------------------------------------------------------------------------------------


@case
def whole() -> None:
    answer = say()
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", TEXT, "stop")
    assert choice.message.tool_calls is None and choice.message.refusal is None and choice.logprobs is None
    assert answer.id and isinstance(answer.created, int) and answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    assert answer.usage.completion_tokens_details.reasoning_tokens == 0


@case
def streamed() -> None:
    chunks = list(say(stream=True))
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


@case
def usage_in_a_stream() -> None:
    *chunks, last = say(stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage.completion_tokens > 10
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@case
def streamed_by_the_helper() -> None:
    with sdk.chat.completions.stream(model="automaton", messages=HELLO) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert text == final.choices[0].message.content == TEXT


@case
async def many_at_once() -> None:
    async with AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0, timeout=60) as client:
        asked = [client.chat.completions.create(model="automaton", messages=HELLO, temperature=0) for _ in range(8)]
        assert {each.choices[0].message.content for each in await asyncio.gather(*asked)} == {TEXT}


@case
def limits() -> None:
    answer = say(max_tokens=50, max_completion_tokens=3)
    assert answer.choices[0].finish_reason == "length" and answer.usage.completion_tokens == 3


@case
def stop_strings() -> None:
    before = TEXT[: TEXT.index("very small")]
    for stop in ("very sm", ["very sm", "never"]):
        choice = say(stop=stop).choices[0]
        assert (choice.message.content, choice.finish_reason) == (before, "stop")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in say(stop="very sm", stream=True)) == before


@case
def seeds_and_choices() -> None:
    asked = {"model": "random", "temperature": 1.0, "max_tokens": 12, "seed": 7}
    first, again = say(**asked), say(**asked)
    assert first.choices[0].message.content == again.choices[0].message.content
    three = say(n=3, **asked)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in three.choices}) > 1
    indexes = {choice.index for chunk in say(n=2, stream=True, **asked) for choice in chunk.choices}
    assert indexes == {0, 1}


@case
def log_probabilities() -> None:
    answer = say(logprobs=True, top_logprobs=2)
    tokens = answer.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode() == TEXT
    assert all(len(token.top_logprobs) == 2 and token.logprob <= 0 for token in tokens)
    chunks = say(logprobs=True, stream=True)
    told = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert b"".join(bytes(token.bytes) for token in told).decode() == TEXT


@case
def penalties_and_biases() -> None:
    answer = say("random", frequency_penalty=1, presence_penalty=1, top_p=0.9, logit_bias={"5": -100}, max_tokens=5)
    assert answer.usage.completion_tokens <= 5


@case
def messages_of_every_form() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    other = {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    conversation = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]},
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "call_2", "content": "noon"},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": ""},
    ]
    assert say(messages=conversation, tools=[WEATHER, TIME]).choices[0].message.content == TEXT


@case
def parameters_of_newer_models() -> None:
    reply = sdk.chat.completions.with_raw_response.create(
        model="automaton",
        messages=HELLO,
        extra_body={
            "reasoning_effort": "low",
            "service_tier": "auto",
            "verbosity": "low",
            "modalities": ["text"],
            "store": False,
            "metadata": {"a": "b"},
            "user": "ann",
            "safety_identifier": "x",
            "prompt_cache_key": "y",
            "never_heard_of": 1,
        },
    )
    assert reply.parse().choices[0].message.content == TEXT
    assert "never_heard_of" in reply.headers["x-ignored-params"]
    assert reply.headers["x-request-id"]


@case
def pictures_are_refused_clearly() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    error = refused(openai.BadRequestError, messages=[{"role": "user", "content": [picture]}])
    assert "image" in error.message and error.param.startswith("messages[0].content[0]")


# ---- tools ----------------------------------------------------------------------------------------------------------


@case
def tools_offered() -> None:
    choice = say(tools=[WEATHER, TIME], tool_choice="auto").choices[0]
    assert (choice.message.content, choice.finish_reason, choice.message.tool_calls) == (TEXT, "stop", None)
    assert say("random", tools=[WEATHER], tool_choice="none", max_tokens=5).choices[0].message.tool_calls is None


@case
def tools_required() -> None:
    for model in ("automaton", "random"):
        choice = say(model, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        [call] = choice.message.tool_calls
        assert (call.type, call.function.name, bool(call.id)) == ("function", "weather", True)
        trip(call.function.arguments)


@case
def tools_by_name() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    [call] = say("random", tools=[TIME, WEATHER], tool_choice=named).choices[0].message.tool_calls
    assert call.function.name == "weather"
    trip(call.function.arguments)


@case
def a_call_and_its_result() -> None:
    answer = say("random", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "content": "Rain"}
    again = say(messages=[*HELLO, answer, result], tools=[WEATHER])
    assert again.choices[0].message.content == TEXT


@case
def tools_streamed_by_the_helper() -> None:
    asked: Any = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}
    with sdk.chat.completions.stream(model="random", messages=HELLO, **asked) as stream:
        names = [event.name for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion().choices[0]
    assert set(names) == {"weather"} and final.finish_reason == "tool_calls"
    [call] = final.message.tool_calls or []
    assert call.id and call.function.name == "weather"
    trip(call.function.arguments)


@case
def tools_parsed_by_the_sdk() -> None:
    tool = openai.pydantic_function_tool(Trip, name="trip")
    answer = sdk.chat.completions.parse(
        model="random", messages=HELLO, tools=[tool], tool_choice="required", parallel_tool_calls=False, temperature=0
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Trip)


@case
def functions_of_the_older_wire() -> None:
    body = {"functions": [WEATHER["function"]], "function_call": {"name": "weather"}}
    message = say("random", extra_body=body).choices[0].message
    assert message.function_call.name == "weather"
    trip(message.function_call.arguments)


# ---- formats --------------------------------------------------------------------------------------------------------


@case
def a_schema_parsed_by_the_sdk() -> None:
    for model in ("automaton", "random"):
        answer = sdk.chat.completions.parse(model=model, messages=HELLO, response_format=Trip, temperature=0)
        assert isinstance(answer.choices[0].message.parsed, Trip)


@case
def a_schema_streamed() -> None:
    with sdk.chat.completions.stream(model="random", messages=HELLO, response_format=Trip, temperature=0) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Trip)


@case
def reasoning_apart_from_the_answer() -> None:
    thought: Any = {"type": "regex", "pattern": "<think>hm</think>yes"}
    answer = say("random", response_format=thought)
    assert (answer.choices[0].message.reasoning_content, answer.choices[0].message.content) == ("hm", "yes")
    assert answer.usage.completion_tokens_details.reasoning_tokens > 0
    deltas = [chunk.choices[0].delta for chunk in say("random", response_format=thought, stream=True)]
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == "hm"
    assert "".join(delta.content or "" for delta in deltas) == "yes"


@case
def json_objects() -> None:
    content = say(response_format={"type": "json_object"}).choices[0].message.content
    assert isinstance(json.loads(content), dict)


@case
def a_schema_that_is_none() -> None:
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}
    error = refused(openai.BadRequestError, response_format=wrong)
    assert error.param.startswith("response_format") and error.type == "invalid_request_error"


# ---- faults ---------------------------------------------------------------------------------------------------------


@case
def a_tool_that_the_server_runs() -> None:
    asked: Any = {"model": "clerk", "tool_choice": {"type": "function", "function": {"name": "clock"}}}
    message = sdk.chat.completions.create(messages=HELLO, **asked).choices[0].message
    assert (message.content, message.tool_calls) == (TEXT, None)
    (ran,) = message.model_extra["server_tool_calls"]
    assert ran["function"]["name"] == "clock" and ran["output"]  # of whatever the model asked for
    chunks = list(sdk.chat.completions.create(messages=HELLO, stream=True, **asked))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)


@case
def a_wrong_key() -> None:
    try:
        sdk.with_options(api_key="sk-wrong").models.list()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key" and error.status_code == 401
    else:
        raise AssertionError("let in")


@case
def a_model_that_is_not_there() -> None:
    error = refused(openai.NotFoundError, model="automatn")
    assert error.code == "model_not_found" and error.param == "model" and "automaton" in str(error)


@case
def a_route_that_is_not_there() -> None:
    try:
        sdk.post("/nothing", cast_to=object, body={})
    except openai.NotFoundError as error:
        assert "/nothing" in error.message
    else:
        raise AssertionError("found")


@case
def more_than_the_context() -> None:
    error = refused(openai.BadRequestError, messages=[{"role": "user", "content": LONG}])
    assert error.code == "context_length_exceeded" and "maximum context length is" in error.message
    error = refused(openai.BadRequestError, messages=[{"role": "user", "content": LONG}], stream=True)
    assert error.code == "context_length_exceeded"


@case
def a_field_of_a_wrong_type() -> None:
    error = refused(openai.BadRequestError, temperature="hot")
    assert error.param == "temperature" and error.type == "invalid_request_error"


@case
def a_fault_in_the_middle_of_a_stream() -> None:
    seen = []
    try:
        for chunk in say("late", stream=True, messages=[{"role": "user", "content": "one two three four five"}]):
            seen.append(chunk)
    except openai.APIError as error:
        assert error.code == "deadline_exceeded" and seen
    else:
        raise AssertionError("the stream ended as if all were well")


@case
def a_client_that_leaves() -> None:
    stream = say("random", stream=True, max_tokens=1500, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    freed("random")
