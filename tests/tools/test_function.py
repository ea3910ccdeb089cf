"""What models are told of a plain function is read off its hints and docstring; what cannot be told is refused."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from server.tools.function import BadArguments, described
from server.tools.plugin import NotATool


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    x: float
    y: float = 0.0


def google(place: str, days: int = 3) -> str:
    """Tell the weather.

    More of it here.

    Args:
        place: Where.
        days: How many.

    Returns:
        A sentence.
    """
    return f"{place} {days}"


def numpy(place: str) -> str:
    """Tell the weather.

    Parameters
    ----------
    place : str
        Where.
    """
    return place


def sphinx(place: str) -> str:
    """Tell the weather.

    :param place: Where.
    """
    return place


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_every_style_of_docstring_describes_the_parameters(function: Callable[..., str]) -> None:
    tool = described(function)
    assert tool.description.startswith("Tell the weather.")
    assert tool.parameters["properties"]["place"] == {"type": "string", "description": "Where."}
    assert tool.parameters["required"] == ["place"]
    assert tool.parameters["additionalProperties"] is False


def test_what_a_docstring_says_beside_parameters_is_told_too() -> None:
    tool = described(google)
    assert tool.description == "Tell the weather.\n\nMore of it here.\n\nReturns: A sentence."
    assert tool.parameters["properties"]["days"] == {"type": "integer", "description": "How many.", "default": 3}


def test_every_kind_of_hint_becomes_a_schema_and_a_value() -> None:
    def many(
        colour: Colour,
        at: Point,
        on: date,
        unit: Literal["c", "f"],
        names: list[str],
        limit: Annotated[int, Field(ge=1, description="The most.")] = 5,
        note: str | None = None,
    ) -> tuple[Any, ...]:
        """Take many."""
        return colour, at, on, unit, names, limit, note

    tool = described(many)
    properties = tool.parameters["properties"]
    assert properties["unit"] == {"enum": ["c", "f"], "type": "string"}
    assert properties["limit"] == {"type": "integer", "minimum": 1, "default": 5, "description": "The most."}
    assert properties["on"] == {"type": "string", "format": "date"}
    assert set(tool.parameters["required"]) == {"colour", "at", "on", "unit", "names"}
    given = {"colour": "blue", "at": {"x": 1}, "on": "2026-02-01", "unit": "c", "names": ["a"]}
    assert tool.call(given) == (Colour.BLUE, Point(1.0), date(2026, 2, 1), "c", ["a"], 5, None)


def test_parameters_may_have_any_name_and_kind() -> None:
    def odd(a: int, /, b: int, *, _c: int = 3, schema: int = 4, model_config: int = 5) -> list[int]:
        """Take odd ones."""
        return [a, b, _c, schema, model_config]

    tool = described(odd)
    assert list(tool.parameters["properties"]) == ["a", "b", "_c", "schema", "model_config"]
    assert tool.call({"a": 1, "b": 2, "model_config": 9}) == [1, 2, 3, 4, 9]


def test_a_default_is_the_very_object_of_the_function() -> None:
    nothing = object()

    def asks(a: int = nothing) -> bool:  # type: ignore[assignment]
        """Ask."""
        return a is nothing

    with pytest.warns(UserWarning, match="not JSON serializable"):
        tool = described(asks)
    assert tool.call({}) is True


def test_arguments_that_only_the_types_refuse_are_told() -> None:
    def on(day: date) -> str:
        """Say."""
        return str(day)

    with pytest.raises(BadArguments, match="day: Input should be a valid date"):
        described(on).call({"day": "yesterday"})


def bare(a, b: int, c) -> None: ...  # type: ignore[no-untyped-def]
def open_ended(*args: int, **more: int) -> None: ...
def unknown(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def socket(a: Callable[[], int], b: Iterator[Any]) -> None: ...
def counting() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (bare, "bare: no type hint at a, c"),
        (open_ended, r"open_ended takes \*args: int and \*\*more: int; name every parameter"),
        (unknown, "unknown: its type hints cannot be read: NameError: name 'Nowhere' is not defined"),
        (socket, "socket: no JSON Schema for the type of a"),
        (counting, "counting is a generator; a tool returns one value"),
        (Colour, "it is a class, not a function"),
        (7, "it is a int, not a function"),
    ],
)
def test_what_cannot_be_a_tool_says_why(function: object, reason: str) -> None:
    with pytest.raises(NotATool, match=reason):
        described(function)
