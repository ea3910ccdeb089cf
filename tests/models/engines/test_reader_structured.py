"""Answers of the reader that conform to a JSON Schema."""

import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest

from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Engine, Generate, Grammar, Message, Passage
from tests.models.engines.driving import deltas, finished, text

SHOP = """\
The red bicycle costs 499 euros and weighs 12 kg. The Falcon X2 is an electric bicycle with a range of 90 kilometres. \
The price of the Falcon X2 is 2,400 euros. Repairs are done by Anna Berg in the workshop in Potsdam. Send questions to \
service@example.org.
"""
STAFF = (
    "The branch in Berlin is led by Tom Weber. The branch in Hamburg is led by Lena Koch. We sell helmets and lamps."
)
PASSAGES = [Passage(SHOP, "shop.md", 0.5), Passage(STAFF, "staff.md", 0.4)]


def _object(required: Sequence[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else list(required)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


def _asked(
    reader: Engine, said: str, schema: dict[str, Any], passages: Sequence[Passage] | None = PASSAGES
) -> tuple[str, bool]:
    grammar = Grammar("json_schema", json.dumps(schema))
    given = None if passages is None else list(passages)
    [events] = finished(reader, Generate([Message("user", said)], given, grammar=grammar))
    refused = {delta.refusal for delta in deltas(events)}
    assert len(refused) == 1
    return text(events), refused.pop()


def _told(reader: Engine, said: str, schema: dict[str, Any], passages: Sequence[Passage] | None = PASSAGES) -> Any:
    answer, refused = _asked(reader, said, schema, passages)
    assert not refused, answer
    told = json.loads(answer)
    assert jsonschema_rs.is_valid(schema, told)
    return told


def test_properties_are_read_from_the_passages_each_in_its_type(reader: Engine) -> None:
    schema = _object(
        price={"type": "number", "description": "What is the price of the Falcon X2?"},
        range_km={"type": "integer", "description": "What is the range of the Falcon X2?"},
        mechanic={"type": "string", "description": "Who does the repairs?"},
        contact={"type": "string", "format": "email", "description": "Where to send questions to"},
    )
    assert _told(reader, "Tell me about the shop.", schema) == {
        "price": 2400, "range_km": 90, "mechanic": "Anna Berg", "contact": "service@example.org",
    }  # fmt: skip


def test_lists_are_gathered_from_several_sentences(reader: Engine) -> None:
    leaders = {"type": "array", "items": {"type": "string"}, "description": "Who leads the branch?"}
    assert {"Tom Weber", "Lena Koch"} <= set(_told(reader, "Who leads?", _object(leaders=leaders))["leaders"])


def test_what_is_not_there_is_null_empty_or_left_out(reader: Engine) -> None:
    schema = _object(
        required=["president", "planets"],
        president={"type": ["string", "null"], "description": "Who was president of France in 1974?"},
        planets={"type": "array", "items": {"type": "string"}, "description": "Which planets have rings?"},
        melting={"type": "number", "description": "What is the melting point of iron?"},
    )
    assert _told(reader, "Tell me.", schema) == {"president": None, "planets": []}


def test_where_no_honest_answer_of_that_form_is_there_it_is_refused(reader: Engine) -> None:
    schema = _object(melting={"type": "number", "description": "The melting point of iron"})
    answer, refused = _asked(reader, "How hot?", schema)
    assert refused
    assert answer == "I did not find what the answer has to hold: melting (the melting point of iron)."


@pytest.mark.parametrize(
    ("said", "title", "told"),
    [
        (
            "John Smith is 34 years old and lives in Berlin.", "Person",
            {"name": "John Smith", "age": 34, "city": "Berlin", "job": None},
        ),
        (
            "Mary Brown, aged 29, lives in Oslo.", "Person",
            {"name": "Mary Brown", "age": 29, "city": "Oslo", "job": None},
        ),
    ],
)  # fmt: skip
def test_without_passages_the_message_itself_is_read(
    said: str, title: str, told: dict[str, Any], reader: Engine
) -> None:
    schema = _object(
        name={"title": "Name", "type": "string"},
        age={"title": "Age", "type": "integer"},
        city={"title": "City", "type": "string"},
        job={"anyOf": [{"type": "string"}, {"type": "null"}], "title": "Job"},
    ) | {"title": title}
    assert _told(reader, said, schema, None) == told


def test_a_message_that_tells_something_goes_before_the_passages(reader: Engine) -> None:
    schema = _object(name={"type": "string"}, age={"type": "integer"})
    assert _told(reader, "John Smith is 34 years old.", schema) == {"name": "John Smith", "age": 34}
    shop = _object(price={"type": "number", "description": "What is the price of the Falcon X2?"})
    assert _told(reader, "I want to know about the Falcon.", shop) == {"price": 2400}


def test_a_long_message_is_read_to_its_end(reader: Engine) -> None:
    filler = "Nothing of note happened on that day, and nobody wrote anything about it. " * 60
    mechanic = {"type": "string", "description": "Who does the repairs?"}
    said = f"Fill in the form.\n\n{filler}\n\nRepairs are done by Anna Berg in the workshop.\n\n{filler}"
    assert _told(reader, said, _object(mechanic=mechanic), None) == {"mechanic": "Anna Berg"}


def test_any_object_holds_the_quote_and_its_source(reader: Engine) -> None:
    assert _told(reader, "Who does the repairs?", {"type": "object"}) == {
        "answer": "Repairs are done by Anna Berg in the workshop in Potsdam.", "source": "shop.md",
    }  # fmt: skip
    assert _told(reader, "Who was president in 1974?", {"type": "object"}) == {"answer": None, "source": None}
    assert _told(reader, "Who does the repairs?", {"type": "object", "additionalProperties": False}) == {}


def test_a_schema_of_no_object_is_the_question_itself(reader: Engine) -> None:
    assert _told(reader, "Who does the repairs?", {"type": "string"}) == "Anna Berg"


def test_forms_it_cannot_keep_to_are_refused(reader: Engine) -> None:
    asked = [Message("user", "Who does the repairs?")]
    with pytest.raises(UnsupportedParameter, match="not of a grammar") as unable:
        reader.submit(1, Generate(asked, PASSAGES, grammar=Grammar("regex", "[a-z]+", "guided_regex")))
    assert unable.value.param == "guided_regex"
    with pytest.raises(InvalidValue, match="cannot be used"):
        reader.submit(1, Generate(asked, PASSAGES, grammar=Grammar("json_schema", '{"type": "objekt"}')))
    assert not reader.busy
