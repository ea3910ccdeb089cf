"""LlamaIndex with its classes for servers like OpenAI's: what its engines and agents call."""

from typing import Any

import openai
from cases import KEY, LONG, TEXT, URL, case, run, trip
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field


class Trip(BaseModel):
    """Where to and how long."""

    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)


def _weather(city: str, days: int) -> str:
    return f"{city} {days}"


weather = FunctionTool.from_defaults(_weather, name="weather", description="Tells it.", fn_schema=Trip)


def llm(model: str = "automaton", **changes: Any) -> OpenAILike:
    asked = {"is_chat_model": True, "is_function_calling_model": True, "context_window": 65536, "temperature": 0}
    return OpenAILike(model=model, api_base=URL, api_key=KEY, max_retries=0, timeout=60, **asked | changes)


def embedder() -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(model_name="embed", api_base=URL, api_key=KEY, max_retries=0)


@case
def whole() -> None:
    answer = llm().chat([ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello")])
    assert answer.message.content == TEXT
    assert answer.raw.usage.completion_tokens > 10


@case
def streamed() -> None:
    assert (
        "".join(piece.delta or "" for piece in llm().stream_chat([ChatMessage(role="user", content="Hello")])) == TEXT
    )


@case
async def streamed_async() -> None:
    stream = await llm().astream_chat([ChatMessage(role="user", content="Hello")])
    assert "".join([piece.delta or "" async for piece in stream]) == TEXT


@case
def a_prompt_to_a_chat_model() -> None:
    assert llm().complete("Hello").text == TEXT
    assert "".join(piece.delta or "" for piece in llm().stream_complete("Hello")) == TEXT


@case
def the_older_wire() -> None:
    legacy = llm(is_chat_model=False, is_function_calling_model=False, max_tokens=3)
    assert TEXT.startswith("Hello this" + legacy.complete("Hello this").text)
    assert TEXT.startswith("Hello this" + "".join(piece.delta or "" for piece in legacy.stream_complete("Hello this")))


@case
def limits() -> None:
    assert llm(max_tokens=3).chat([ChatMessage(role="user", content="Hello")]).raw.choices[0].finish_reason == "length"


@case
def tools_offered() -> None:
    answer = llm().chat_with_tools([weather], user_msg="Hello")
    assert answer.message.content == TEXT
    assert llm().get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []


@case
def tools_required() -> None:
    model = llm("random")
    answer = model.chat_with_tools([weather], user_msg="Hello", tool_required=True, allow_parallel_tool_calls=False)
    [call] = model.get_tool_calls_from_response(answer)
    assert call.tool_name == "weather" and call.tool_id
    trip(call.tool_kwargs)


@case
def tools_streamed() -> None:
    model = llm("random")
    asked = {"user_msg": "Hello", "tool_required": True, "allow_parallel_tool_calls": False}
    *_, last = model.stream_chat_with_tools([weather], **asked)
    [call] = model.get_tool_calls_from_response(last)
    assert call.tool_name == "weather"
    trip(call.tool_kwargs)


@case
def a_tool_run_by_the_library() -> None:
    answer = llm("random").predict_and_call([weather], user_msg="Hello", tool_required=True, max_tokens=400)
    assert answer.sources and answer.sources[0].tool_name == "weather"


@case
def structured_output() -> None:
    for model in ("automaton", "random"):
        program = llm(model).as_structured_llm(Trip)
        assert isinstance(program.complete("Hello").raw, Trip)


@case
def embeddings() -> None:
    one = embedder().get_query_embedding("a cat")
    both = embedder().get_text_embedding_batch(["a cat", "a kitten"])
    assert len(one) == len(both[1]) and both[0] != both[1]
    assert max(abs(a - b) for a, b in zip(one, both[0], strict=True)) < 1e-3


@case
def an_index_asked() -> None:
    notes = [Document(text="Set server.listen to change the port."), Document(text="Cats sleep all day.")]
    index = VectorStoreIndex.from_documents(notes, embed_model=embedder())
    found = index.as_retriever(similarity_top_k=1).retrieve("How do I change the port?")
    assert "port" in found[0].text
    assert str(index.as_query_engine(llm=llm()).query("How do I change the port?")) == TEXT


@case
def a_wrong_key_and_a_wrong_model() -> None:
    for changes, kind in (
        ({"api_key": "sk-wrong"}, openai.AuthenticationError),
        ({"model": "no"}, openai.NotFoundError),
    ):
        model = OpenAILike(**{"model": "automaton", "api_base": URL, "api_key": KEY, "max_retries": 0} | changes)
        try:
            model.complete("Hello")
        except kind as error:
            assert error.message
        else:
            raise AssertionError(f"not refused: {changes}")


@case
def more_than_the_context() -> None:
    try:
        llm().complete(LONG)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded"
    else:
        raise AssertionError("not refused")


@case
def a_fault_in_the_middle_of_a_stream() -> None:
    seen = []
    try:
        for piece in llm("late").stream_chat([ChatMessage(role="user", content="one two three four five")]):
            seen.append(piece)
    except openai.APIError as error:
        assert error.code == "deadline_exceeded" and seen
    else:
        raise AssertionError("the stream ended as if all were well")


run()
