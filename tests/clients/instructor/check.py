"""instructor: answers as pydantic models, in each of the ways it knows to ask for them."""

from typing import Any

import instructor
from cases import HELLO, KEY, URL, case, run
from instructor.core import InstructorRetryException
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, Field


class Trip(BaseModel):
    """Where to and how long."""

    city: str = Field(max_length=8)
    days: int = Field(ge=0, le=99)


def client(mode: instructor.Mode, **changes: Any) -> instructor.Instructor:
    asked: dict[str, Any] = {"base_url": URL, "api_key": KEY, "max_retries": 0, "timeout": 60} | changes
    return instructor.from_openai(OpenAI(**asked), mode=mode)


def asked(mode: instructor.Mode, model: str = "random", **changes: Any) -> Any:
    wanted = {"model": model, "messages": HELLO, "response_model": Trip, "max_retries": 0, "temperature": 0} | changes
    return client(mode).create(**wanted)


@case
def by_a_tool() -> None:
    for model in ("automaton", "random"):
        assert isinstance(asked(instructor.Mode.TOOLS, model), Trip)


@case
def by_a_strict_tool() -> None:
    assert isinstance(asked(instructor.Mode.TOOLS_STRICT), Trip)


@case
def by_a_schema() -> None:
    for model in ("automaton", "random"):
        assert isinstance(asked(instructor.Mode.JSON_SCHEMA, model), Trip)


@case
def with_what_was_answered() -> None:
    trip, answer = client(instructor.Mode.TOOLS).create_with_completion(
        model="random", messages=HELLO, response_model=Trip, max_retries=0, temperature=0
    )
    assert isinstance(trip, Trip) and answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.completion_tokens > 0


@case
def partly_while_it_comes() -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        *_, last = client(mode).create_partial(model="random", messages=HELLO, response_model=Trip, temperature=0)
        assert last.city is not None and last.days is not None


@case
async def async_by_a_tool() -> None:
    asking = instructor.from_openai(AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0), mode=instructor.Mode.TOOLS)
    assert isinstance(
        await asking.create(model="random", messages=HELLO, response_model=Trip, max_retries=0, temperature=0), Trip
    )


@case
def a_choice_of_words() -> None:
    class Mood(BaseModel):
        """How it feels."""

        mood: str = Field(pattern="^(good|bad)$")
        sure: bool

    found = asked(instructor.Mode.JSON_SCHEMA, response_model=Mood)
    assert found.mood in ("good", "bad")


@case
def faults_are_shown() -> None:
    for changes, word in (({"model": "automatn"}, "automaton"), ({"messages": []}, "messages")):
        try:
            asked(instructor.Mode.TOOLS, **changes)
        except InstructorRetryException as error:
            assert word in str(error)
        else:
            raise AssertionError("not refused")


run()
