"""The anthropic Python SDK, against /v1/messages."""

from typing import Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic
from cases import HELLO, KEY, LONG, SERVER, TEXT, TRIP, case, freed, run, trip

sdk = Anthropic(base_url=SERVER, api_key=KEY, max_retries=0, timeout=60)
WEATHER: Any = {"name": "weather", "description": "Tells it.", "input_schema": TRIP}


def say(model: str = "automaton", **changes: Any) -> Any:
    return sdk.messages.create(**{"model": model, "messages": HELLO, "max_tokens": 400} | changes)


@case
def whole() -> None:
    answer = say(system="Be brief.")
    assert (answer.type, answer.role, answer.stop_reason, answer.stop_sequence) == (
        "message",
        "assistant",
        "end_turn",
        None,
    )
    assert [(block.type, block.text) for block in answer.content] == [("text", TEXT)]
    assert answer.usage.input_tokens > 0 and answer.usage.output_tokens > 10 and answer.id.startswith("msg_")


@case
def streamed() -> None:
    with sdk.messages.stream(model="automaton", messages=HELLO, max_tokens=400) as stream:
        assert "".join(stream.text_stream) == TEXT
        final = stream.get_final_message()
    assert final.content[0].text == TEXT and final.stop_reason == "end_turn" and final.usage.output_tokens > 10


@case
def the_order_of_events() -> None:
    kinds = [event.type for event in say(stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) <= {"content_block_delta", "ping"}


@case
async def streamed_async() -> None:
    async with (
        AsyncAnthropic(base_url=SERVER, api_key=KEY, max_retries=0) as client,
        client.messages.stream(model="automaton", messages=HELLO, max_tokens=400) as stream,
    ):
        assert "".join([text async for text in stream.text_stream]) == TEXT


@case
def limits_and_stop_sequences() -> None:
    short = say(max_tokens=3)
    assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 3
    stopped = say(stop_sequences=["very sm", "never"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "very sm")
    assert stopped.content[0].text == TEXT[: TEXT.index("very small")]


@case
def conversations_of_every_form() -> None:
    answer = say(
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
            {"role": "user", "content": "And?"},
        ],
        metadata={"user_id": "ann"},
        extra_body={"temperature": 0.5, "top_k": 40, "top_p": 0.9},
    )
    assert answer.content[0].text == TEXT


@case
def tools_offered() -> None:
    answer = say(tools=[WEATHER], tool_choice={"type": "auto"})
    assert answer.stop_reason == "end_turn" and answer.content[0].text == TEXT


@case
def tools_required_and_named() -> None:
    for choice in ({"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "weather"}):
        for model in ("automaton", "random"):
            answer = say(model, tools=[WEATHER], tool_choice=choice)
            assert answer.stop_reason == "tool_use"
            [block] = [block for block in answer.content if block.type == "tool_use"]
            assert block.name == "weather" and block.id
            trip(block.input)


@case
def tools_streamed() -> None:
    asked: Any = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    with sdk.messages.stream(model="random", messages=HELLO, max_tokens=400, **asked) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    [block] = [block for block in final.content if block.type == "tool_use"]
    trip("".join(pieces))
    trip(block.input)


@case
def a_call_and_its_result() -> None:
    first = say("random", tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"})
    call = next(block for block in first.content if block.type == "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "Rain"}]}
    again = say(
        tools=[WEATHER],
        messages=[*HELLO, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}],
    )
    assert again.content[0].text == TEXT


@case
def tokens_are_counted() -> None:
    counted = sdk.messages.count_tokens(model="automaton", messages=HELLO, system="Be brief.", tools=[WEATHER])
    answer = say(system="Be brief.", tools=[WEATHER], max_tokens=1)
    usage = answer.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens > 10


@case
def a_tool_that_the_server_runs() -> None:
    asked: Any = {"model": "clerk", "tool_choice": {"type": "tool", "name": "clock"}}
    (block,) = say(**asked).content
    assert (block.type, block.text) == ("text", TEXT)
    with sdk.messages.stream(messages=HELLO, max_tokens=400, **asked) as stream:
        assert stream.get_final_message().content[0].text == TEXT


@case
def a_tool_that_the_server_runs_as_blocks() -> None:
    choice = {"type": "tool", "name": "clock"}
    asked: Any = {"model": "clerk", "tool_choice": choice, "betas": ["mcp-client-2025-11-20"]}
    whole = sdk.beta.messages.create(messages=HELLO, max_tokens=400, **asked)
    with sdk.beta.messages.stream(messages=HELLO, max_tokens=400, **asked) as stream:
        final = stream.get_final_message()
    for answer in (whole, final):
        use, result, text = answer.content
        assert (use.type, use.name, use.server_name) == ("mcp_tool_use", "clock", "hearth")
        assert result.type == "mcp_tool_result"
        assert result.tool_use_id == use.id and result.content[0].text  # of whatever the model asked for
        assert text.text == TEXT
    said: Any = [*HELLO, {"role": "assistant", "content": whole.content}, {"role": "user", "content": "And?"}]
    again = sdk.beta.messages.create(model="clerk", messages=said, max_tokens=400, betas=asked["betas"])
    assert again.content[0].text == TEXT


@case
def models() -> None:
    assert {"automaton", "random"} <= {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve("automaton").id == "automaton"


@case
def keys_of_both_forms() -> None:
    with Anthropic(base_url=SERVER, auth_token=KEY, api_key=None, max_retries=0) as client:
        assert client.messages.create(model="automaton", messages=HELLO, max_tokens=1).usage.output_tokens == 1
    try:
        with Anthropic(base_url=SERVER, api_key="sk-wrong", max_retries=0) as client:
            client.messages.create(model="automaton", messages=HELLO, max_tokens=1)
    except anthropic.AuthenticationError as error:
        assert "key" in error.message
    else:
        raise AssertionError("let in")


@case
def faults() -> None:
    for changes, kind, word in (
        ({"model": "automatn"}, anthropic.NotFoundError, "automaton"),
        ({"messages": [{"role": "user", "content": LONG}]}, anthropic.BadRequestError, "too long"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"extra_body": {"temperature": "hot"}}, anthropic.BadRequestError, "temperature"),
    ):
        try:
            say(**changes)
        except kind as error:
            body: Any = error.body
            assert body["type"] == "error" and body["error"]["type"] and word in body["error"]["message"], body
        else:
            raise AssertionError(f"not refused: {list(changes)}")


@case
def a_fault_in_the_middle_of_a_stream() -> None:
    seen = []
    try:
        for event in say("late", stream=True, messages=[{"role": "user", "content": "one two three four five"}]):
            seen.append(event)
    except anthropic.APIStatusError as error:
        assert "late" in str(error) and seen
    else:
        raise AssertionError("the stream ended as if all were well")


@case
def a_client_that_leaves() -> None:
    stream = say("random", stream=True, max_tokens=4000)
    next(iter(stream))
    stream.close()
    freed("random")


run()
