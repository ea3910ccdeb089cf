"""The cases of the openai Python SDK on all routes but chat, after those of chat."""

import base64
import math
import struct
from typing import Any

import openai
from cases import HELLO, KEY, SERVER, TEXT, TRIP, case, trip
from cases import run as run
from openai import OpenAI
from openai_python import Trip, sdk

FLAT: Any = {"type": "function", "name": "weather", "parameters": TRIP, "strict": True}


# ---- other routes ---------------------------------------------------------------------------------------------------


@case
def models() -> None:
    listed = {model.id: model for model in sdk.models.list()}
    assert {"automaton", "random", "embed", "rerank"} <= set(listed)
    one = sdk.models.retrieve("automaton")
    assert one.object == "model" and one.owned_by and isinstance(one.created, int)
    assert one.model_dump()["context_length"] == one.model_dump()["max_model_len"] > 0


@case
def embeddings() -> None:
    both = sdk.embeddings.create(model="embed", input=["a cat", "a kitten"])
    assert [each.index for each in both.data] == [0, 1] and both.usage.prompt_tokens > 0
    plain = sdk.embeddings.create(model="embed", input="a cat", encoding_format="float").data[0].embedding
    assert max(abs(a - b) for a, b in zip(both.data[0].embedding, plain, strict=True)) < 1e-5
    assert math.isclose(sum(each * each for each in plain), 1, rel_tol=1e-3)
    coded: Any = sdk.embeddings.create(model="embed", input="a cat", encoding_format="base64").data[0].embedding
    assert (
        struct.unpack(f"<{len(plain)}f", base64.b64decode(coded))[0]
        == struct.unpack("<f", struct.pack("<f", plain[0]))[0]
    )


@case
def embeddings_of_token_ids() -> None:
    assert len(sdk.embeddings.create(model="embed", input=[[101, 1037, 102], [5]]).data) == 2
    assert len(sdk.embeddings.create(model="embed", input=[101, 1037, 102]).data) == 1


@case
def embeddings_that_cannot_be() -> None:
    for changes in ({"input": ""}, {"input": []}, {"input": ["a", ""]}, {"input": "a", "dimensions": 100}):
        try:
            sdk.embeddings.create(**{"model": "embed"} | changes)
        except openai.BadRequestError as error:
            assert error.param and error.param.startswith(next(reversed(changes)))
        else:
            raise AssertionError(f"not refused: {changes}")


@case
def completions_of_the_older_wire() -> None:
    answer = sdk.completions.create(model="automaton", prompt="Hello this", temperature=0, max_tokens=3)
    assert TEXT.startswith("Hello this" + answer.choices[0].text)
    chunks = sdk.completions.create(model="automaton", prompt="Hello", max_tokens=3, stream=True, temperature=0)
    assert TEXT.startswith("Hello" + "".join(chunk.choices[0].text for chunk in chunks))
    several = sdk.completions.create(model="automaton", prompt=["Hello", "Hello this"], max_tokens=1, logprobs=1)
    assert [choice.text for choice in several.choices] == [" this", " is"]
    assert several.choices[0].logprobs.tokens == [" this"]


@case
def a_base_url_without_its_version() -> None:
    with OpenAI(base_url=SERVER, api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model="automaton", messages=HELLO)
    assert answer.choices[0].message.content == TEXT


# ---- responses ------------------------------------------------------------------------------------------------------


@case
def responses() -> None:
    answer = sdk.responses.create(model="automaton", input="Hello", instructions="Be brief.")
    assert answer.output_text == TEXT and answer.status == "completed" and answer.error is None
    assert answer.usage and answer.usage.output_tokens > 10
    short = sdk.responses.create(model="automaton", input=HELLO, max_output_tokens=16)
    assert short.status == "incomplete" and short.incomplete_details
    assert short.incomplete_details.reason == "max_output_tokens"


@case
def responses_streamed() -> None:
    with sdk.responses.stream(model="automaton", input="Hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert final.output_text == TEXT
    assert [event.sequence_number for event in events] == list(range(len(events)))


@case
def responses_parsed() -> None:
    answer = sdk.responses.parse(model="random", input="Hello", text_format=Trip, temperature=0)
    assert isinstance(answer.output_parsed, Trip)


@case
def responses_with_tools() -> None:
    asked: Any = {"model": "random", "tools": [FLAT], "tool_choice": "required", "parallel_tool_calls": False}
    answer = sdk.responses.create(input="Hello", temperature=0, **asked)
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert call.name == "weather"
    trip(call.arguments)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
    again = sdk.responses.create(model="automaton", input=[result], previous_response_id=answer.id)
    assert again.output_text == TEXT


@case
def responses_kept() -> None:
    first = sdk.responses.create(model="automaton", input="Hello")
    second = sdk.responses.create(model="automaton", input="And?", previous_response_id=first.id)
    assert second.previous_response_id == first.id and second.usage.input_tokens > first.usage.input_tokens
    assert sdk.responses.retrieve(first.id).output_text == TEXT
    assert sdk.responses.input_items.list(first.id).data[0].role == "user"
    sdk.responses.delete(first.id)
    try:
        sdk.responses.retrieve(first.id)
    except openai.NotFoundError as error:
        assert first.id in error.message
    else:
        raise AssertionError("still there")


# ---- files and vector stores ----------------------------------------------------------------------------------------

NOTES = b"# Port\n\nSet server.listen to change the port.\n\n# Cats\n\nCats sleep all day.\n"


@case
def files() -> None:
    file = sdk.files.create(file=("notes.md", NOTES), purpose="assistants")
    assert (file.filename, file.bytes, file.purpose) == ("notes.md", len(NOTES), "assistants")
    assert file.id in {each.id for each in sdk.files.list()}
    assert sdk.files.retrieve(file.id).id == file.id
    assert sdk.files.content(file.id).read() == NOTES
    assert sdk.files.delete(file.id).deleted
    try:
        sdk.files.retrieve(file.id)
    except openai.NotFoundError as error:
        assert file.id in error.message
    else:
        raise AssertionError("still there")


@case
def vector_stores() -> None:
    file = sdk.files.create(file=("notes.md", NOTES), purpose="assistants")
    store = sdk.vector_stores.create(name="notes", metadata={"of": "tests"})
    try:
        added = sdk.vector_stores.files.create_and_poll(
            file.id, vector_store_id=store.id, attributes={"team": "ops"}, poll_interval_ms=50
        )
        assert added.status == "completed" and added.last_error is None
        assert sdk.vector_stores.retrieve(store.id).file_counts.completed == 1
        assert store.id in {each.id for each in sdk.vector_stores.list()}
        ours: Any = {"type": "eq", "key": "team", "value": "ops"}
        found = sdk.vector_stores.search(store.id, query="How do I change the port?", filters=ours, max_num_results=1)
        assert [each.file_id for each in found] == [file.id] and "server.listen" in found.data[0].content[0].text
        others: Any = {"type": "eq", "key": "team", "value": "sales"}
        assert sdk.vector_stores.search(store.id, query="port", filters=others).data == []
    finally:
        sdk.vector_stores.delete(store.id)
        sdk.files.delete(file.id)
