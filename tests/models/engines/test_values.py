"""Typed values in what a person wrote, and the fields of a schema as questions."""

from datetime import date
from typing import Any

import pytest

from server.models.engines.reader import values
from server.models.engines.reader.fields import Field, fields, spaced, whole
from server.models.engines.reader.phrases import items

TODAY = date(2026, 11, 29)
"""A Sunday."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Book a table for four on Friday at 7 pm", [4]),
        ("Convert 1,250.50 dollars", [1250.5]),
        ("3 nights from 2026-05-01 to 2026-05-04", [3]),
        ("two dozen eggs and 3.5k units", [24, 3500]),
        ("the red one and twenty-five others", [25]),
        ("it is -5 degrees", [-5]),
        ("add two numbers", []),
        ("the Falcon X2, v1.2.3, +49 30 123456 or a1@b2.org", []),
    ],
)
def test_numbers_are_found_where_they_are_numbers(text: str, found: list[float]) -> None:
    assert [each.value for each in values.numbers(text)] == found


@pytest.mark.parametrize(
    ("said", "day"),
    [
        ("2027-05-01", "2027-05-01"), ("May 3rd", "2027-05-03"), ("3 May 2027", "2027-05-03"),
        ("24.12.2026", "2026-12-24"),
        ("12/24/2026", "2026-12-24"), ("today", "2026-11-29"), ("tomorrow", "2026-11-30"), ("Friday", "2026-12-04"),
        ("next Friday", "2026-12-04"), ("in 3 days", "2026-12-02"), ("the day after tomorrow", "2026-12-01"),
    ],
)  # fmt: skip
def test_days_are_found_and_read_from_today(said: str, day: str) -> None:
    [found] = values.dates(f"I come {said}, then.")
    assert found.value == said
    assert values.iso_date(said, TODAY) == day


@pytest.mark.parametrize(
    ("said", "clock"),
    [
        ("5 pm", "17:00"), ("17:30", "17:30"), ("5:30 p.m.", "17:30"), ("noon", "12:00"), ("7 o'clock", "07:00"),
    ],
)  # fmt: skip
def test_times_are_found_and_read(said: str, clock: str) -> None:
    [found] = values.times(f"Call me at {said}")
    assert found.value == said
    assert values.iso_time(said) == clock


def test_a_day_with_a_time_in_it_is_one_moment() -> None:
    assert [each.value for each in values.moments("at 2027-05-01T10:00 or 9:00")] == ["2027-05-01T10:00", "9:00"]


def test_addresses_quotations_and_choices_are_found() -> None:
    text = "Mail bob@example.org or see https://example.org/a, then call +49 30 123456. It's Bob's \"last word\"."
    assert [each.value for each in values.addresses(text, "email")] == ["bob@example.org"]
    assert [each.value for each in values.addresses(text, "url")] == ["https://example.org/a"]
    assert [each.value for each in values.addresses(text, "phone")] == ["+49 30 123456"]
    assert [each.value for each in values.addresses("is db1.example.org at 10.0.0.7 up?", "host")] == [
        "db1.example.org", "10.0.0.7",
    ]  # fmt: skip
    assert [each.value for each in values.quotations(text)] == ["last word"]
    said = values.chosen("the Dark-mode, high priority", ["high", "low", "dark_mode", "mode"])
    assert [each.value for each in said] == ["dark_mode", "high"]


def test_a_switch_is_on_off_or_not_spoken_of() -> None:
    stems = ["breakfast"]
    assert values.switched("a room with breakfast", stems) is True
    assert values.switched("a room without breakfast, please", stems) is False
    assert values.switched("not in June, with breakfast", stems) is True
    assert values.switched("a room", stems) is None
    assert [values.agreed(said) for said in ("Yes, please", "no", "perhaps")] == [True, False, None]


@pytest.mark.parametrize(
    ("text", "word", "listed"),
    [
        ("I have eggs, milk and flour in the fridge", "milk", ["eggs", "milk", "flour"]),
        ("Alice and Bob are going to a fair", "Alice", ["Alice", "Bob"]),
        ("Alice is going to a fair", "Alice", ["Alice"]),
    ],
)
def test_an_enumeration_is_taken_whole(text: str, word: str, listed: list[str]) -> None:
    at = text.index(word)
    found = items(text, at, at + len(word))
    assert [each.removeprefix("I have ") for each in found] == listed


# ---- fields ---------------------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = {
    "title": "BookingRequest",
    "type": "object",
    "properties": {
        "guestCount": {"type": ["integer", "null"], "description": "How many guests come."},
        "city": {"type": "string", "description": "The city, e.g. San Francisco, CA"},
        "day": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "unit": {"$ref": "#/$defs/Unit"},
        "e_mail": {"type": "string"},
        "names": {"type": "array", "items": {"type": "string"}},
        "room": {"type": "object", "properties": {"floor": {"type": "integer"}}, "required": ["floor"]},
        "loop": {"$ref": "#"},
    },
    "required": ["city"],
    "$defs": {"Unit": {"type": "string", "enum": ["c", "f"]}},
}


def _field(name: str) -> Field:
    return next(each for each in fields(SCHEMA) if each.name == name)


def test_fields_tell_kind_need_and_question() -> None:
    kinds = {each.name: each.kind for each in fields(SCHEMA)}
    assert kinds == {
        "guestCount": "integer", "city": "string", "day": "date", "unit": "enum", "e_mail": "email", "names": "array",
        "room": "object", "loop": "object",
    }  # fmt: skip
    assert [each.name for each in fields(SCHEMA) if each.required] == ["city"]
    assert [each.name for each in fields(SCHEMA) if each.nullable] == ["guestCount", "day"]
    assert _field("unit").options == ("c", "f")
    assert [inner.kind for inner in _field("room").inner] == ["integer"]
    assert _field("guestCount").question == "How many guests come?"
    assert _field("city").question == "What is the city?"
    assert _field("names").question == "What is the names of the booking request?"
    assert _field("city").plain == "city"
    assert _field("guestCount").plain == "guest count (how many guests come)"


def test_a_field_accepts_what_its_own_schema_does() -> None:
    assert _field("unit").accepts("c")
    assert not _field("unit").accepts("k")
    assert not Field("n", {"type": "integer", "minimum": 3}, "integer", True).accepts(2)


def test_names_are_spelled_as_words() -> None:
    names = ("postalCode", "postal_code", "HTTPStatus", "get-weather")
    assert [spaced(name) for name in names] == ["postal code", "postal code", "HTTP status", "get weather"]


def test_a_schema_of_no_object_is_one_field() -> None:
    assert whole({"type": "string"}).kind == "string"
    assert whole({"type": "array", "items": {"type": "integer"}}).inner[0].kind == "integer"
