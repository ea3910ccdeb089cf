"""litellm, the library that gateways and coding assistants call models with."""

from typing import Any

import litellm
from cases import HELLO, KEY, LONG, SERVER, TEXT, TRIP, URL, case, run, trip

litellm.telemetry = False
litellm.suppress_debug_info = True
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": TRIP}}


def say(model: str = "automaton", **changes: Any) -> Any:
    asked = {"messages": HELLO, "api_base": URL, "api_key": KEY, "temperature": 0, "num_retries": 0, "timeout": 60}
    return litellm.completion(model=f"openai/{model}", **asked | changes)


@case
def whole() -> None:
    answer = say()
    assert answer.choices[0].message.content == TEXT and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 10


@case
def streamed() -> None:
    chunks = list(say(stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    built = litellm.stream_chunk_builder(chunks)
    assert built.choices[0].message.content == TEXT and built.usage.completion_tokens > 10


@case
async def streamed_async() -> None:
    stream = await litellm.acompletion(
        model="openai/automaton", messages=HELLO, api_base=URL, api_key=KEY, temperature=0, stream=True
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == TEXT


@case
def as_a_server_of_its_hosted_kind() -> None:
    answer = litellm.completion(model="hosted_vllm/automaton", messages=HELLO, api_base=URL, api_key=KEY, temperature=0)
    assert answer.choices[0].message.content == TEXT


@case
def limits_and_stop_strings() -> None:
    assert say(max_tokens=3).choices[0].finish_reason == "length"
    assert say(max_completion_tokens=3).choices[0].finish_reason == "length"
    assert say(stop=["very sm"]).choices[0].message.content == TEXT[: TEXT.index("very small")]


@case
def seeds_choices_and_log_probabilities() -> None:
    asked = {"n": 2, "seed": 7, "temperature": 1, "max_tokens": 8, "logprobs": True, "top_logprobs": 2}
    first, again = say("random", **asked), say("random", **asked)
    assert len(first.choices) == 2 and first.choices[0].logprobs.content
    assert [c.message.content for c in first.choices] == [c.message.content for c in again.choices]


@case
def tools_offered() -> None:
    message = say(tools=[WEATHER], tool_choice="auto").choices[0].message
    assert message.content == TEXT and not message.tool_calls


@case
def tools_required_and_named() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = say("random", tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False)
        assert answer.choices[0].finish_reason == "tool_calls"
        [call] = answer.choices[0].message.tool_calls
        trip(call.function.arguments)


@case
def tools_streamed() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    chunks = list(say("random", tools=[WEATHER], tool_choice=named, stream=True))
    [call] = litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls
    assert call.function.name == "weather" and call.id
    trip(call.function.arguments)


@case
def a_call_and_its_result() -> None:
    message = say("random", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "name": "weather", "content": "Rain"}
    assert say(messages=[*HELLO, message, result], tools=[WEATHER]).choices[0].message.content == TEXT


@case
def structured_output() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "trip", "schema": TRIP, "strict": True}}
    for model in ("automaton", "random"):
        trip(say(model, response_format=wanted).choices[0].message.content)
    assert say(response_format={"type": "json_object"}).choices[0].message.content.startswith("{")


@case
def reasoning_apart_from_the_answer() -> None:
    thought = {"type": "regex", "pattern": "<think>hm</think>yes"}
    message = say("random", extra_body={"response_format": thought}).choices[0].message
    assert (message.reasoning_content, message.content) == ("hm", "yes")


@case
def the_older_wire() -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/automaton", prompt="Hello this", api_base=URL, api_key=KEY, max_tokens=3
    )
    assert TEXT.startswith("Hello this" + answer.choices[0].text)


@case
def embeddings() -> None:
    answer = litellm.embedding(model="openai/embed", input=["a cat", "a kitten"], api_base=URL, api_key=KEY)
    assert [each["index"] for each in answer.data] == [0, 1]
    assert len(answer.data[0]["embedding"]) == len(answer.data[1]["embedding"]) > 100


@case
def rerank() -> None:
    notes = ["Set server.listen.", "Add a folder.", "Cats sleep."]
    for name, base in (
        ("hosted_vllm/rerank", f"{URL}/rerank"),
        ("jina_ai/rerank", f"{URL}/rerank"),
        ("cohere/rerank", SERVER),
    ):
        answer = litellm.rerank(model=name, query="port", documents=notes, top_n=2, api_base=base, api_key=KEY)
        found = [each["index"] for each in answer.results]
        assert len(found) == 2 and set(found) <= {0, 1, 2}, name


@case
def responses() -> None:
    answer = litellm.responses(model="openai/automaton", input="Hello", api_base=URL, api_key=KEY)
    assert answer.output[0].content[0].text == TEXT
    kinds = [
        event.type
        for event in litellm.responses(model="openai/automaton", input="Hello", api_base=URL, api_key=KEY, stream=True)
    ]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


@case
def messages_of_anthropic() -> None:
    answer = litellm.completion(
        model="anthropic/automaton", messages=HELLO, api_base=URL.removesuffix("/v1"), api_key=KEY, temperature=0
    )
    assert answer.choices[0].message.content == TEXT


@case
def faults_are_its_own() -> None:
    for changes, kind in (
        ({"api_key": "sk-wrong"}, litellm.AuthenticationError),
        ({"model": "automatn"}, litellm.NotFoundError),
        ({"messages": [{"role": "user", "content": LONG}]}, litellm.ContextWindowExceededError),
        ({"messages": [{"role": "user", "content": LONG}], "stream": True}, litellm.ContextWindowExceededError),
        ({"tools": [{"type": "function", "function": {}}]}, litellm.BadRequestError),
    ):
        try:
            say(**changes)
        except kind as error:
            assert str(error)
        else:
            raise AssertionError(f"not refused: {list(changes)}")


@case
def a_fault_in_the_middle_of_a_stream() -> None:
    seen = []
    try:
        for chunk in say("late", stream=True, messages=[{"role": "user", "content": "one two three four five"}]):
            seen.append(chunk)
    except (litellm.APIError, litellm.ServiceUnavailableError) as error:
        assert "late" in str(error) and seen
    else:
        raise AssertionError("the stream ended as if all were well")


run()
