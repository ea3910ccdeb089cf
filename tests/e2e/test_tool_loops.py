"""Loops with tools as the SDKs of OpenAI and Anthropic drive them: run by the client, and run by the server.

The starter picks a function by its description, fills its arguments from the message and answers from what it brought.
The tiny model would call nothing by itself: a grammar makes it.
"""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic import Anthropic, beta_tool
from openai import OpenAI
from openai.lib.responses_tool_runner import RegisteredFunction, ResponsesToolRunner

from tests.live import Live
from tests.making.oracle import needs_torch

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(scope="module")
def openai(starter: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{starter.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def anthropic(starter: Live) -> Iterator[Anthropic]:
    with Anthropic(base_url=starter.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


# ---- run by the client ----------------------------------------------------------------------------------------------


def get_weather(city: str, unit: str = "celsius") -> str:
    """Get the weather forecast for a city."""
    return f"In {city} it will be sunny at 22 degrees {unit}."


def find_phone_number(person: str) -> str:
    """Look up the phone number of a person in the address book."""
    return f"The number of {person} is 555-0173."


FUNCTIONS = {each.__name__: each for each in (get_weather, find_phone_number)}
PARAMETERS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "city": {"type": "string", "description": "The city to get the forecast for"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "find_phone_number": {"person": {"type": "string", "description": "The person's name"}},
}
asked = pytest.mark.parametrize(
    ("question", "name", "arguments", "words", "stream"),
    [
        (
            "What's the weather in Oslo in fahrenheit?",
            "get_weather",
            {"city": "Oslo", "unit": "fahrenheit"},
            "In Oslo it will be sunny at 22 degrees fahrenheit.",
            False,
        ),
        (
            "What is the phone number of Maria Keller?",
            "find_phone_number",
            {"person": "Maria Keller"},
            "The number of Maria Keller is 555-0173.",
            True,
        ),
    ],
    ids=["whole", "streamed"],
)


def described(name: str) -> dict[str, Any]:
    """A function's description and its JSON Schema."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    required = [each.name for each in parameters if each.default is each.empty]
    schema = {"type": "object", "properties": PARAMETERS[name], "required": required}
    return {"name": name, "description": inspect.getdoc(FUNCTIONS[name]), "parameters": schema}


@asked
def test_openais_chat_client_runs_what_the_starter_calls(
    question: str, name: str, arguments: dict[str, Any], words: str, stream: bool, openai: OpenAI
) -> None:
    tools: Any = [{"type": "function", "function": described(each)} for each in FUNCTIONS]

    def say(messages: list[Any]) -> Any:
        told: dict[str, Any] = {"model": "starter", "messages": messages, "tools": tools}
        if not stream:
            return openai.chat.completions.create(**told).choices[0]
        with openai.chat.completions.stream(**told) as events:
            return events.get_final_completion().choices[0]

    messages: list[Any] = [{"role": "user", "content": question}]
    first = say(messages)
    assert first.finish_reason == "tool_calls" and not first.message.content
    [call] = first.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (name, arguments)
    result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
    messages += [
        first.message.model_dump(exclude_none=True, warnings=False),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    last = say(messages)
    assert last.finish_reason == "stop" and words in last.message.content and not last.message.tool_calls


@asked
def test_openais_responses_client_runs_what_the_starter_calls(
    question: str, name: str, arguments: dict[str, Any], words: str, stream: bool, openai: OpenAI
) -> None:
    tools: Any = [{"type": "function", "strict": False, **described(each)} for each in FUNCTIONS]

    def say(**told: Any) -> Any:
        told = {"model": "starter", "tools": tools} | told
        if not stream:
            return openai.responses.create(**told)
        with openai.responses.stream(**told) as events:
            return events.get_final_response()

    first = say(input=question)
    [call] = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", name, arguments)
    result = FUNCTIONS[call.name](**json.loads(call.arguments))
    output: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": result}]
    last = say(input=output, previous_response_id=first.id)
    assert last.status == "completed" and words in last.output_text
    assert [item.type for item in last.output] == ["message"]


@asked
def test_anthropics_client_runs_what_the_starter_calls(
    question: str, name: str, arguments: dict[str, Any], words: str, stream: bool, anthropic: Anthropic
) -> None:
    tools: Any = []
    for each in FUNCTIONS:
        tool = described(each)
        tools.append({"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]})

    def say(messages: list[Any]) -> Any:
        told: dict[str, Any] = {"model": "starter", "messages": messages, "tools": tools, "max_tokens": 200}
        if not stream:
            return anthropic.messages.create(**told)
        with anthropic.messages.stream(**told) as events:
            return events.get_final_message()

    messages: list[Any] = [{"role": "user", "content": question}]
    first = say(messages)
    [call] = first.content
    assert (first.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", name, arguments)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": FUNCTIONS[call.name](**call.input)}
    messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    last = say(messages)
    [block] = last.content
    assert last.stop_reason == "end_turn" and words in block.text


@streams
def test_openais_own_tool_runner_runs_to_the_end(stream: bool, openai: OpenAI) -> None:
    function = RegisteredFunction(
        {"type": "function", "strict": False, **described("get_weather")},  # type: ignore[typeddict-item]
        lambda arguments: get_weather(**arguments),  # type: ignore[arg-type]
    )
    told: Any = {"model": "starter", "input": "What's the weather in Oslo?", "store": False}
    answer = ResponsesToolRunner(functions=[function]).run(openai, told, stream=stream, max_steps=3)
    assert "In Oslo it will be sunny at 22 degrees celsius." in answer.output_text


@streams
def test_anthropics_own_tool_runner_runs_to_the_end(stream: bool, anthropic: Anthropic) -> None:
    """It asks for a thread first, which the server would have to remember; refused, it sends the whole conversation."""
    tool = beta_tool(get_weather)
    messages: Any = [{"role": "user", "content": "What's the weather in Oslo?"}]
    runner = anthropic.beta.messages.tool_runner(
        model="starter", max_tokens=200, tools=[tool], messages=messages, stream=stream
    )
    last = runner.until_done()
    assert "In Oslo it will be sunny at 22 degrees celsius." in "".join(
        block.text for block in last.content if block.type == "text"
    )


def test_a_document_that_anthropics_client_sends_is_answered_from(anthropic: Anthropic) -> None:
    document: Any = {"type": "document", "title": "Colours"}
    document["source"] = {"type": "text", "media_type": "text/plain", "data": "The grass is green. The sky is blue."}
    said: Any = [document, {"type": "text", "text": "What colour is the sky?"}]
    answer = anthropic.messages.create(model="starter", max_tokens=200, messages=[{"role": "user", "content": said}])
    assert "The sky is blue." in "".join(block.text for block in answer.content if block.type == "text")


# ---- run by the server ----------------------------------------------------------------------------------------------

READER: dict[str, Any] = {"model": "forecaster", "question": "What's the weather in Oslo in fahrenheit?"}
TINY: dict[str, Any] = {"model": "clerk", "question": "answer fox?"}
served = pytest.mark.parametrize("case", [READER, TINY], ids=["starter", "tiny"])


@pytest.fixture(scope="module")
def served_openai(grounded: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{grounded.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def served_anthropic(grounded: Live) -> Iterator[Anthropic]:
    with Anthropic(base_url=grounded.url, api_key="none", max_retries=0, timeout=60) as client:
        yield client


def holds(case: dict[str, Any], name: str, arguments: Any, output: str, text: str) -> None:
    """What was called, what it brought, and what was said then; the tiny model's words mean nothing, if it has any."""
    if case is READER:
        assert (name, arguments) == ("get_weather", {"city": "Oslo", "unit": "fahrenheit"})
        assert output == "In Oslo it will rain all day at 12 degrees fahrenheit." and output in text
    else:
        assert name == "facts" and list(arguments) == ["about"] and arguments["about"] in ("fox", "owl")
        assert output == f"{arguments['about']}: it sleeps."


@needs_torch
@streams
@served
def test_openais_chat_client_is_told_what_the_server_ran(
    case: dict[str, Any], stream: bool, served_openai: OpenAI
) -> None:
    told: dict[str, Any] = {"model": case["model"], "messages": [{"role": "user", "content": case["question"]}]}
    if case is TINY:
        told["tool_choice"] = {"type": "function", "function": {"name": "facts"}}
    if stream:
        with served_openai.chat.completions.stream(**told) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = served_openai.chat.completions.create(**told).choices[0]
    assert choice.finish_reason == "stop" and not choice.message.tool_calls
    [run] = choice.message.model_extra["server_tool_calls"]
    called = run["function"]
    holds(case, called["name"], json.loads(called["arguments"]), run["output"], choice.message.content)
    assert run["is_error"] is False


@needs_torch
@streams
@served
def test_openais_responses_client_is_told_what_the_server_ran(
    case: dict[str, Any], stream: bool, served_openai: OpenAI
) -> None:
    told: dict[str, Any] = {"model": case["model"], "input": case["question"]}
    if case is TINY:
        told["tool_choice"] = {"type": "function", "name": "facts"}
    if stream:
        with served_openai.responses.stream(**told) as events:
            kinds = [event.type for event in events]
            answer: Any = events.get_final_response()
        assert kinds.index("response.mcp_call.in_progress") < kinds.index("response.mcp_call.completed")
    else:
        answer = served_openai.responses.create(**told)
    call, *said = answer.output
    assert (answer.status, call.type, call.server_label, call.status) == (
        "completed",
        "mcp_call",
        "hearth",
        "completed",
    )
    assert all(item.type == "message" for item in said)
    holds(case, call.name, json.loads(call.arguments), call.output, answer.output_text)


@needs_torch
@streams
def test_openais_own_tool_runner_takes_calls_of_the_server_that_are_declared(
    stream: bool, served_openai: OpenAI, grounded: Live
) -> None:
    declared: Any = {"type": "mcp", "server_label": "hearth", "server_url": f"{grounded.url}/mcp"}
    declared["require_approval"] = "never"
    told: Any = {"model": READER["model"], "input": READER["question"], "tools": [declared], "store": False}
    answer = ResponsesToolRunner().run(served_openai, told, stream=stream, max_steps=3)
    assert [item.type for item in answer.output] == ["mcp_call", "message"]
    assert "In Oslo it will rain all day at 12 degrees fahrenheit." in answer.output_text


@needs_torch
@streams
@served
def test_anthropics_client_is_told_what_the_server_ran(
    case: dict[str, Any], stream: bool, served_anthropic: Anthropic
) -> None:
    told = _messages(case)
    if stream:
        events = list(served_anthropic.messages.create(**told, stream=True))
        [ended] = [event for event in events if event.type == "message_delta"]
        [run] = (ended.model_extra or {})["server_tool_calls"]
        deltas = [event.delta for event in events if event.type == "content_block_delta"]
        reason, text = ended.delta.stop_reason, "".join(each.text for each in deltas if each.type == "text_delta")
    else:
        raw = served_anthropic.messages.with_raw_response.create(**told)
        answer = raw.parse()
        [run] = (answer.model_extra or {})["server_tool_calls"]
        assert raw.headers["x-hearth-tools"] == run["function"]["name"]
        reason, text = answer.stop_reason, "".join(block.text for block in answer.content if block.type == "text")
    assert reason == "end_turn" and run["is_error"] is False
    holds(case, run["function"]["name"], json.loads(run["function"]["arguments"]), run["output"], text)


@needs_torch
@streams
@served
def test_anthropics_client_has_blocks_of_what_the_server_ran(
    case: dict[str, Any], stream: bool, served_anthropic: Anthropic
) -> None:
    told = _messages(case) | {"betas": ["mcp-client-2025-11-20"]}
    if stream:
        with served_anthropic.beta.messages.stream(**told) as events:
            answer: Any = events.get_final_message()
    else:
        answer = served_anthropic.beta.messages.create(**told)
    use, result, *said = answer.content
    assert (use.type, use.server_name, result.type) == ("mcp_tool_use", "hearth", "mcp_tool_result")
    assert (result.tool_use_id, result.is_error, answer.stop_reason) == (use.id, False, "end_turn")
    holds(case, use.name, use.input, result.content[0].text, "".join(block.text for block in said))


def _messages(case: dict[str, Any]) -> dict[str, Any]:
    told = {"model": case["model"], "max_tokens": 200, "messages": [{"role": "user", "content": case["question"]}]}
    return told | ({"tool_choice": {"type": "tool", "name": "facts"}} if case is TINY else {})
