"""What the starter does beside quoting, over the wire: calls of functions, structured answers, given texts."""

import json

import openai
import pytest
from pydantic import BaseModel

from tests.live import Live

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather forecast for a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city to get the forecast for"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
ASKED = {"role": "user", "content": "What's the weather in Paris in celsius?"}


@pytest.fixture(scope="module")
def sdk(starter: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{starter.url}/v1", api_key="none", max_retries=0, timeout=60)


def test_a_function_is_called_and_its_result_quoted(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(model="reader", messages=[ASKED], tools=[WEATHER])
    assert "x-ignored-params" not in raw.headers
    choice = raw.parse().choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    [call] = choice.message.tool_calls or []
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "celsius"}
    said = [
        ASKED,
        choice.message.model_dump(exclude_none=True, warnings=False),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 22 degrees."},
    ]
    answer = sdk.chat.completions.create(model="reader", messages=said, tools=[WEATHER])
    assert answer.choices[0].message.content == "“Sunny, 22 degrees.” — get_weather"
    assert answer.choices[0].finish_reason == "stop"


def test_a_streamed_call_is_the_same(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.stream(model="reader", messages=[ASKED], tools=[WEATHER]) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    [call] = final.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "celsius"}


def test_the_choice_of_tools_is_kept_to(sdk: openai.OpenAI) -> None:
    def called(said: str, choice: object) -> list[str]:
        messages = [{"role": "user", "content": said}]
        told = sdk.chat.completions.create(model="reader", messages=messages, tools=[WEATHER], tool_choice=choice)
        return [call.function.name for call in told.choices[0].message.tool_calls or []]

    named = {"type": "function", "function": {"name": "get_weather"}}
    assert called(ASKED["content"], "none") == []
    assert called(ASKED["content"], "auto") == ["get_weather"]
    assert called("I am going to Oslo.", "required") == ["get_weather"]
    assert called("I am going to Oslo.", named) == ["get_weather"]


class Person(BaseModel):
    """As clients declare what they want."""

    name: str
    age: int
    city: str | None


def test_a_structured_answer_is_parsed_by_the_sdk(sdk: openai.OpenAI) -> None:
    said = [{"role": "user", "content": "John Smith is 34 years old and lives in Berlin."}]
    told = sdk.chat.completions.parse(model="reader", messages=said, response_format=Person).choices[0].message
    assert told.parsed == Person(name="John Smith", age=34, city="Berlin")
    assert told.refusal is None


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_there_comes_as_a_refusal(stream: bool, sdk: openai.OpenAI) -> None:
    said = [{"role": "user", "content": "What is the melting point of iron?"}]
    if stream:
        with sdk.chat.completions.stream(model="starter", messages=said, response_format=Person) as chunks:
            message = chunks.get_final_completion().choices[0].message
    else:
        message = sdk.chat.completions.parse(model="starter", messages=said, response_format=Person).choices[0].message
    assert message.refusal is not None
    assert message.refusal.startswith("I did not find what the answer has to hold: ")
    assert not message.content
    assert message.parsed is None


def test_a_refusal_is_one_in_the_responses_api_too(sdk: openai.OpenAI) -> None:
    asked = "What is the melting point of iron?"
    told = sdk.responses.parse(model="starter", input=asked, text_format=Person)
    assert told.output_parsed is None
    with sdk.responses.stream(model="starter", input=asked, text_format=Person) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert {"response.refusal.delta", "response.refusal.done"} <= kinds
    for response in (told, final):
        [message] = response.output
        assert message.type == "message"
        [part] = message.content
        assert part.type == "refusal"
        assert part.refusal.startswith("I did not find what the answer has to hold: ")


def test_a_text_in_the_prompt_is_answered_from(sdk: openai.OpenAI) -> None:
    said = "Context: The library opens at nine. Roses are pruned in winter.\nQuestion: When are roses pruned?\nAnswer:"
    told = sdk.chat.completions.create(model="reader", messages=[{"role": "user", "content": said}])
    assert told.choices[0].message.content == "“Roses are pruned in winter.”"


def test_a_follow_up_is_searched_for_with_what_it_is_about(sdk: openai.OpenAI) -> None:
    said = [
        {"role": "user", "content": "How do I change the port?"},
        {"role": "assistant", "content": "Edit server.listen."},
        {"role": "user", "content": "And for one run?"},
    ]
    told = sdk.chat.completions.create(model="starter", messages=said).choices[0].message.content or ""
    assert "listen on another port for one run" in told


def test_a_statement_fills_a_form_though_there_are_documents(sdk: openai.OpenAI) -> None:
    said = [{"role": "user", "content": "John Smith is 34 years old and lives in Berlin."}]
    told = sdk.chat.completions.parse(model="starter", messages=said, response_format=Person).choices[0].message
    assert told.parsed == Person(name="John Smith", age=34, city="Berlin")


def test_a_prompt_is_a_question_to_the_documents(sdk: openai.OpenAI) -> None:
    told = sdk.completions.create(model="starter", prompt="How do I change the port?", max_tokens=200).choices[0]
    assert "server.listen" in told.text and told.finish_reason == "stop"


def test_what_a_model_without_probabilities_cannot_include_is_named(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model="starter", input="Hi", include=["message.output_text.logprobs"])
    assert refused.value.param == "include"
