"""LangChain with langchain-openai: what its chains and agents call."""

from typing import Any

import openai
from cases import HELLO, KEY, LONG, TEXT, URL, case, freed, run, trip
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field


class Trip(BaseModel):
    """Where to and how long."""

    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)


@tool(args_schema=Trip)
def weather(city: str, days: int) -> str:
    """Tell the weather."""
    return f"{city} {days}"


def chat(model: str = "automaton", **changes: Any) -> ChatOpenAI:
    asked: dict[str, Any] = {"temperature": 0, "max_retries": 0, "timeout": 60} | changes
    return ChatOpenAI(model=model, base_url=URL, api_key=KEY, **asked)


@case
def whole() -> None:
    answer = chat().invoke([SystemMessage("Be brief."), HumanMessage("Hello")])
    assert answer.content == TEXT and answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata and answer.usage_metadata["output_tokens"] > 10
    assert answer.response_metadata["model_name"] == "automaton"


@case
def streamed() -> None:
    chunks = list(chat().stream("Hello"))
    assert "".join(str(chunk.content) for chunk in chunks) == TEXT


@case
def usage_in_a_stream() -> None:
    total = None
    for chunk in chat(stream_usage=True).stream("Hello"):
        total = chunk if total is None else total + chunk
    assert total is not None and total.usage_metadata and total.usage_metadata["output_tokens"] > 10


@case
async def streamed_async() -> None:
    assert "".join([str(chunk.content) async for chunk in chat().astream("Hello")]) == TEXT


@case
def a_chain() -> None:
    chain = (
        ChatPromptTemplate.from_messages([("system", "Be {how}."), ("user", "{asked}")]) | chat() | StrOutputParser()
    )
    assert chain.invoke({"how": "brief", "asked": "Hello"}) == TEXT


@case
def several_at_once() -> None:
    assert [answer.content for answer in chat().batch(["Hello", "Good day", "Hi"])] == [TEXT] * 3


@case
def limits_and_stop_strings() -> None:
    assert chat(max_tokens=3).invoke("Hello").response_metadata["finish_reason"] == "length"
    assert chat().invoke("Hello", stop=["very sm"]).content == TEXT[: TEXT.index("very small")]


@case
def several_choices() -> None:
    generated = chat("random", n=3, temperature=1, seed=3, max_tokens=8).generate([[HumanMessage("Hello")]])
    assert len(generated.generations[0]) == 3


@case
def log_probabilities() -> None:
    told = chat(logprobs=True, top_logprobs=2).invoke("Hello").response_metadata["logprobs"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in told).decode() == TEXT


@case
def tools_offered() -> None:
    answer = chat().bind_tools([weather]).invoke("Hello")
    assert answer.content == TEXT and answer.tool_calls == []


@case
def tools_required_and_named() -> None:
    for choice in ("required", "any", "weather"):
        bound = chat("random").bind_tools([weather], tool_choice=choice, parallel_tool_calls=False)
        [call] = bound.invoke("Hello").tool_calls
        assert call["name"] == "weather" and call["id"]
        trip(call["args"])


@case
def tools_streamed() -> None:
    bound = chat("random").bind_tools([weather], tool_choice="weather", strict=True)
    total = None
    for chunk in bound.stream("Hello"):
        total = chunk if total is None else total + chunk
    assert total is not None
    [call] = total.tool_calls
    assert call["name"] == "weather" and call["id"]
    trip(call["args"])


@case
def a_call_and_its_result() -> None:
    call = chat("random").bind_tools([weather], tool_choice="weather").invoke("Hello").tool_calls[0]
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    answer = chat().bind_tools([weather]).invoke([HumanMessage("Hello"), AIMessage("", tool_calls=[call]), result])
    assert answer.content == TEXT


@case
def structured_output() -> None:
    for method in ("json_schema", "function_calling"):
        for model in ("automaton", "random"):
            bound = chat(model).with_structured_output(Trip, method=method)
            assert isinstance(bound.invoke("Hello"), Trip), method


@case
def structured_output_of_a_schema_streamed() -> None:
    bound = chat("random").with_structured_output(Trip.model_json_schema(), method="json_schema")
    *_, last = bound.stream("Hello")
    trip(last)


@case
def json_mode() -> None:
    answer = chat().bind(response_format={"type": "json_object"}).invoke("Hello")
    assert str(answer.content).startswith("{")


@case
def the_older_wire() -> None:
    legacy = OpenAI(model="automaton", base_url=URL, api_key=KEY, temperature=0, max_tokens=3)
    assert TEXT.startswith("Hello this" + legacy.invoke("Hello this"))


@case
def responses() -> None:
    answer = chat(use_responses_api=True).invoke("Hello")
    assert answer.text == TEXT
    bound = chat("random", use_responses_api=True).bind_tools([weather], tool_choice="weather")
    [call] = bound.invoke("Hello").tool_calls
    trip(call["args"])
    text = "".join(chunk.text for chunk in chat(use_responses_api=True).stream("Hello"))
    assert text == TEXT


@case
def embeddings() -> None:
    embed = OpenAIEmbeddings(model="embed", base_url=URL, api_key=KEY, check_embedding_ctx_length=False)
    one = embed.embed_query("a cat")
    [first, second] = embed.embed_documents(["a cat", "a kitten"])
    assert len(one) == len(first) == len(second) and first != second
    assert max(abs(a - b) for a, b in zip(one, first, strict=True)) < 1e-3


@case
def a_wrong_key_and_a_wrong_model() -> None:
    try:
        ChatOpenAI(model="automaton", base_url=URL, api_key="sk-wrong", max_retries=0).invoke("Hello")
    except openai.AuthenticationError as error:
        assert "key" in str(error)
    else:
        raise AssertionError("let in")
    try:
        chat("automatn").invoke("Hello")
    except openai.NotFoundError as error:
        assert "automaton" in str(error)
    else:
        raise AssertionError("found")


@case
def more_than_the_context() -> None:
    try:
        chat().invoke(LONG)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
    else:
        raise AssertionError("not refused")


@case
def a_fault_in_the_middle_of_a_stream() -> None:
    seen = []
    try:
        for chunk in chat("late").stream("one two three four five"):
            seen.append(chunk)
    except openai.APIError as error:
        assert error.code == "deadline_exceeded" and seen
    else:
        raise AssertionError("the stream ended as if all were well")


@case
def a_client_that_leaves() -> None:
    stream = chat("random", max_tokens=1500, extra_body={"ignore_eos": True}).stream(HELLO)
    next(stream)
    stream.close()
    freed("random")


run()
