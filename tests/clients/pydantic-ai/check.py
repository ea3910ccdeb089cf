"""pydantic-ai: agents whose results are of a type, which it asks for by a forced tool call."""

from typing import Any

from cases import KEY, LONG, TEXT, URL, case, run
from pydantic import BaseModel, Field
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.exceptions import ModelAPIError, ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Trip(BaseModel):
    """Where to and how long."""

    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)


def model(name: str = "automaton", key: str = KEY) -> OpenAIChatModel:
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=URL, api_key=key))


def agent(name: str = "automaton", **changes: Any) -> Agent[None, Any]:
    return Agent(model(name), **{"retries": 0, "model_settings": {"temperature": 0}} | changes)


@case
def whole() -> None:
    result = agent(instructions="Be brief.").run_sync("Hello")
    assert result.output == TEXT and result.usage.output_tokens > 10


@case
async def streamed() -> None:
    async with agent().run_stream("Hello") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
    assert "".join(pieces) == TEXT and len(pieces) > 1
    assert result.usage.output_tokens > 10


@case
def a_conversation() -> None:
    first = agent().run_sync("Hello")
    second = agent().run_sync("And?", message_history=first.all_messages())
    assert second.output == TEXT


@case
def structured_output_by_a_tool() -> None:
    for name in ("automaton", "random"):
        result = agent(name, output_type=ToolOutput(Trip)).run_sync("Hello")
        assert isinstance(result.output, Trip)


@case
def structured_output_by_a_schema() -> None:
    for name in ("automaton", "random"):
        result = agent(name, output_type=NativeOutput(Trip)).run_sync("Hello")
        assert isinstance(result.output, Trip)


@case
async def structured_output_streamed() -> None:
    async with agent("random", output_type=ToolOutput(Trip)).run_stream("Hello") as result:
        assert isinstance(await result.get_output(), Trip)


@case
def tools_offered() -> None:
    asked = agent()

    @asked.tool_plain
    def weather(city: str) -> str:
        """Tell the weather."""
        return city

    assert asked.run_sync("Hello").output == TEXT


@case
def limits_stop_and_seed() -> None:
    result = agent().run_sync("Hello", model_settings={"stop_sequences": ["very sm"], "seed": 1})
    assert result.output == TEXT[: TEXT.index("very small")]
    result = agent().run_sync("Hello", model_settings={"max_tokens": 3})
    assert TEXT.startswith(result.output) and result.response.finish_reason == "length"


@case
def log_probabilities() -> None:
    settings: Any = {"openai_logprobs": True, "openai_top_logprobs": 2}
    told = agent().run_sync("Hello", model_settings=settings).response.provider_details
    assert told and "".join(token["token"] for token in told["logprobs"]) == TEXT


@case
def reasoning_apart_from_the_answer() -> None:
    thought = {"response_format": {"type": "regex", "pattern": "<think>hm</think>yes"}}
    parts = agent("random").run_sync("Hello", model_settings={"extra_body": thought}).response.parts
    assert [(part.part_kind, part.content) for part in parts] == [("thinking", "hm"), ("text", "yes")]


@case
def responses() -> None:
    asked = OpenAIResponsesModel("automaton", provider=OpenAIProvider(base_url=URL, api_key=KEY))
    assert Agent(asked).run_sync("Hello").output == TEXT
    structured = OpenAIResponsesModel("random", provider=OpenAIProvider(base_url=URL, api_key=KEY))
    assert isinstance(Agent(structured, output_type=ToolOutput(Trip)).run_sync("Hello").output, Trip)


@case
async def responses_streamed() -> None:
    asked = OpenAIResponsesModel("automaton", provider=OpenAIProvider(base_url=URL, api_key=KEY))
    async with Agent(asked).run_stream("Hello") as result:
        assert await result.get_output() == TEXT


@case
def a_wrong_key_and_a_wrong_model() -> None:
    for name, key, status in (("automaton", "sk-wrong", 401), ("automatn", KEY, 404)):
        try:
            Agent(model(name, key)).run_sync("Hello")
        except ModelHTTPError as error:
            assert error.status_code == status and isinstance(error.body, dict) and error.body["message"]
        else:
            raise AssertionError("not refused")


@case
def more_than_the_context() -> None:
    try:
        agent().run_sync(LONG)
    except ModelHTTPError as error:
        assert type(error).__name__ == "ModelContextWindowExceededError", type(error)
    else:
        raise AssertionError("not refused")


@case
async def a_fault_in_the_middle_of_a_stream() -> None:
    try:
        async with agent("late").run_stream("one two three four five") as result:
            async for _ in result.stream_text():
                pass
    except ModelAPIError as error:
        assert "late" in str(error)
    else:
        raise AssertionError("the stream ended as if all were well")


run()
