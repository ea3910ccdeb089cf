"""The reader calls functions: which, with what, and when it asks back. Twenty others are measured by the bench."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from bench.reader_phrases import TOOLS
from bench.reader_tools import turns
from server.errors import InvalidValue
from server.models.engine import Engine, Generate, Message, Passage, ToolCall
from server.models.engines.reader.calling import AskBack, Call, called
from server.models.engines.reader.engine import ReaderEngine
from server.models.question import asked_last
from server.models.tool_formats import ToolSpec
from tests.models.engines.driving import deltas, finished, text


def _function(name: str, description: str, required: str = "", **properties: dict[str, Any]) -> ToolSpec:
    schema = {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}
    return ToolSpec(name, schema, description)


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


FUNCTIONS = [
    _function(
        "rent_car", "Rent a car.", "city pickup_date",
        city=_text("City where the car is picked up"), pickup_date=_text("Day of pick-up", format="date"),
        days={"type": "integer", "description": "For how many days"},
        car_type=_text("Kind of car", enum=["compact", "suv", "van"]),
    ),
    _function(
        "find_recipe", "Find a cooking recipe for a dish.", "dish",
        dish=_text("The dish to cook"), servings={"type": "integer", "description": "Number of people to serve"},
        vegetarian={"type": "boolean", "description": "Whether it must be vegetarian"},
    ),
    _function(
        "send_sms", "Send a text message to a phone number.", "phone_number message",
        phone_number=_text("Phone number to text"), message=_text("Text of the message"),
    ),
    _function(
        "calculate_mortgage", "Calculate the monthly payment of a mortgage loan.", "principal rate years",
        principal={"type": "number", "description": "Loan amount in dollars"},
        rate={"type": "number", "description": "Annual interest rate in percent"},
        years={"type": "integer", "description": "Length of the loan in years"},
    ),
]  # fmt: skip
TODAY = date(2026, 11, 29)


def _outcome(
    reader: Engine, *said: str, forced: bool = False, tools: Sequence[ToolSpec] = FUNCTIONS
) -> Call | AskBack | None:
    assert isinstance(reader, ReaderEngine)
    messages = [Message("user" if number % 2 == 0 else "assistant", each) for number, each in enumerate(said)]
    steps = called(messages, asked_last(messages), list(tools), forced, reader.reads, TODAY)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            outcome: Call | AskBack | None = done.value
            return outcome


def _arguments(outcome: Call | AskBack | None) -> dict[str, Any]:
    assert isinstance(outcome, Call), outcome
    told: dict[str, Any] = msgspec.json.decode(outcome.arguments)
    schema = next(tool.parameters for tool in FUNCTIONS if tool.name == outcome.name)
    assert jsonschema_rs.is_valid(schema or {}, told)
    return {"": outcome.name, **told}


@pytest.mark.parametrize(
    ("said", "call"),
    [
        (
            "Rent a van in Lyon for 4 days from tomorrow",
            {"": "rent_car", "city": "Lyon", "pickup_date": "2026-11-30", "days": 4, "car_type": "van"},
        ),
        (
            "How do I cook lasagna for six people? It should be vegetarian.",
            {"": "find_recipe", "dish": "lasagna", "servings": 6, "vegetarian": True},
        ),
        (
            "Send an SMS to 0176 12345678: dinner is ready",
            {"": "send_sms", "phone_number": "0176 12345678", "message": "dinner is ready"},
        ),
        (
            "What would I pay monthly for a 300,000 dollar loan at 4.5% over 30 years?",
            {"": "calculate_mortgage", "principal": 300000, "rate": 4.5, "years": 30},
        ),
    ],
)
def test_the_function_that_fits_is_called_with_what_was_said(said: str, call: dict[str, Any], reader: Engine) -> None:
    assert _arguments(_outcome(reader, said)) == call


OTHERS = [
    _function("get_weather", "Get the weather for a city.", "city", city={"type": "string"}),
    _function("search_web", "Search the web for information.", "query", query={"type": "string"}),
    _function(
        "send_email", "Send an email to a recipient.", "to subject body",
        to=_text("Recipient email address"), subject={"type": "string"}, body={"type": "string"},
    ),
    _function("get_delivery_date", "Get the delivery date of an order.", "order_id", order_id=_text("The order's ID")),
    _function("read_file", "Read the contents of a file.", "path", path=_text("Path of the file")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("What is the weather in San Francisco, CA?", {"": "get_weather", "city": "San Francisco, CA"}),
        ("Search the web for news about electric cars", {"": "search_web", "query": "news about electric cars"}),
        (
            "Send an email to bob@example.com with subject Lunch and body See you at noon",
            {"": "send_email", "to": "bob@example.com", "subject": "Lunch", "body": "See you at noon"},
        ),
        (
            "Send an email to bob@example.com saying hi, with the subject Greetings",
            {"": "send_email", "to": "bob@example.com", "subject": "Greetings", "body": "hi"},
        ),
        ("What's the delivery date of order 4821?", {"": "get_delivery_date", "order_id": "4821"}),
        ("When is order #12 delivered? The order ID is order_12", {"": "get_delivery_date", "order_id": "order_12"}),
        ("Read the file /etc/hostname", {"": "read_file", "path": "/etc/hostname"}),
    ],
)
def test_a_value_is_taken_whole_by_what_stands_before_it(said: str, call: dict[str, Any], reader: Engine) -> None:
    outcome = _outcome(reader, said, tools=OTHERS)
    assert isinstance(outcome, Call), outcome
    assert {"": outcome.name, **msgspec.json.decode(outcome.arguments)} == call


@pytest.mark.parametrize(
    "said", ["Who won the world cup in 1974?", "When are roses pruned?", "Write a poem about the sea"]
)
def test_what_no_function_is_for_calls_none(said: str, reader: Engine) -> None:
    assert _outcome(reader, said) is None


def test_what_is_missing_is_asked_for_in_plain_words_and_the_answer_is_taken(reader: Engine) -> None:
    asked = _outcome(reader, "Rent a car in Berlin")
    assert isinstance(asked, AskBack)
    assert (
        asked.text
        == "I can do that with `rent_car`, but I need to know the pickup date (day of pick-up). Please tell me."
    )
    call = _arguments(_outcome(reader, "Rent a car in Berlin", asked.text, "on 2027-01-02"))
    assert call == {"": "rent_car", "city": "Berlin", "pickup_date": "2027-01-02"}


def test_a_follow_up_takes_the_rest_from_what_was_said_before(reader: Engine) -> None:
    before = "Rent a van in Lyon on 2027-01-02"
    assert _arguments(_outcome(reader, before, "Done.", "And in Paris?")) == {
        "": "rent_car", "city": "Paris", "pickup_date": "2027-01-02", "car_type": "van",
    }  # fmt: skip


def test_a_forced_call_is_made_whatever_is_asked_and_never_invented(reader: Engine) -> None:
    one = [FUNCTIONS[1]]
    assert isinstance(
        _outcome(reader, "What is there to do in the evening?", forced=True, tools=[FUNCTIONS[3]]), AskBack
    )
    assert _arguments(_outcome(reader, "Pancakes!", forced=True, tools=one))["dish"] == "Pancakes"
    nothing = ToolSpec("ping", None, "Ping the server.")
    assert _outcome(reader, "Tell me a story", forced=True, tools=[nothing]) == Call("ping", "{}")


def test_numbers_that_could_as_well_change_places_keep_their_order(reader: Engine) -> None:
    two = {name: {"type": "integer", "description": f"The {name} number"} for name in ("first", "second")}
    tool = _function("add", "Add two numbers.", "first second", **two)
    assert _outcome(reader, "Add the numbers 17 and 25", tools=[tool]) == Call("add", '{"first":17,"second":25}')
    assert isinstance(_outcome(reader, "Add two numbers", tools=[tool]), AskBack)


def test_values_that_do_not_fit_the_schema_are_not_sent(reader: Engine) -> None:
    tool = _function(
        "set_volume", "Set the loudness of the radio.", "level", level={"type": "integer", "minimum": 0, "maximum": 10}
    )
    assert isinstance(_outcome(reader, "Set the loudness of the radio to 50", tools=[tool]), AskBack)
    assert _outcome(reader, "Set the loudness of the radio to 5", tools=[tool]) == Call("set_volume", '{"level":5}')


# ---- through the engine ---------------------------------------------------------------------------------------------


def test_a_call_is_one_delta_and_counts_its_tokens(reader: Engine) -> None:
    request = Generate([Message("user", "Find a recipe for pancakes")], tools=FUNCTIONS)
    [events] = finished(reader, request)
    [delta] = deltas(events)
    assert delta.call == ToolCall("", "find_recipe", '{"dish":"pancakes"}')
    assert (delta.text, delta.finish_reason) == ("", "stop")
    assert delta.tokens > 3
    [short] = finished(reader, msgspec.structs.replace(request, max_tokens=2))
    assert [(each.call, each.finish_reason) for each in deltas(short)] == [(None, "length")]


def test_without_a_function_that_fits_the_passages_are_read(reader: Engine) -> None:
    page = Passage("Roses are pruned in late winter. Tomatoes need sun.", "garden.md", 0.5)
    [events] = finished(reader, Generate([Message("user", "When are roses pruned?")], [page], tools=FUNCTIONS))
    assert text(events) == "“Roses are pruned in late winter.” — garden.md"


def test_a_greeting_calls_nothing(reader: Engine) -> None:
    [events] = finished(reader, Generate([Message("user", "hello")], tools=FUNCTIONS))
    assert "built-in reader" in text(events)


def test_a_schema_that_is_none_is_refused_by_name(reader: Engine) -> None:
    broken = ToolSpec("broken", {"type": "objekt"}, "Does something.")
    with pytest.raises(InvalidValue, match="`broken` has no usable JSON Schema") as refused:
        reader.submit(1, Generate([Message("user", "do something")], tools=[broken]))
    assert refused.value.param == "tools"
    assert not reader.busy


# ---- the bench's turns ----------------------------------------------------------------------------------------------


def test_the_bench_makes_the_same_valid_turns_each_time() -> None:
    made = turns(240)
    assert made == turns(240)
    assert made != turns(240, seed=8)
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}
    assert len(schemas) == 20
    assert {turn.name for turn in made} == {*schemas, None}
    for turn in made:
        assert turn.name is None or jsonschema_rs.is_valid(schemas[turn.name], turn.arguments), turn
