"""Answers that conform to a JSON Schema: each property's description is a question to the texts at hand."""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec

from server.errors import InvalidValue, UnsupportedParameter
from server.models.engine import Grammar
from server.models.engines.reader import values
from server.models.engines.reader.calling import defaulted, lacking
from server.models.engines.reader.fields import Field, Schema, fields, leaves, whole
from server.models.engines.reader.filling import Reads, filled, option, typed, written
from server.models.engines.reader.nearness import words
from server.models.engines.reader.phrases import Message, cleaned, items
from server.models.engines.reader.sentences import split
from server.models.engines.reader.spans import Span
from server.models.question import named

_NOTHING = object()


class Quoted(NamedTuple):
    """What the reader would say without a schema: for one that wants an object of any form."""

    answer: str | None
    source: str | None


class Refused(NamedTuple):
    text: str


_ASKS = re.compile(
    r"\?\s*$|^\W*(?:please\s+)?(?:who|what|when|where|which|why|how|whose|tell|explain|describe|list|give|show|name|"
    r"summari[sz]e|find|answer|say|define|compare|return|write)\b",
    re.IGNORECASE,
)


def states(message: str) -> bool:
    """Whether it tells something instead of asking for it: then the form is to be filled from its own words first."""
    return _ASKS.search(message) is None


def schema_of(grammar: Grammar) -> Schema:
    """Raises UnsupportedParameter for a form other than a JSON Schema, InvalidValue where that is none."""
    if grammar.kind != "json_schema":
        raise UnsupportedParameter(
            "The reader answers in its documents' words or in the form of a JSON Schema, not of a grammar.",
            param=grammar.param,
        )
    try:
        schema = msgspec.json.decode(grammar.text, type=dict[str, Any])
        jsonschema_rs.validator_for(schema, offline=True)
    except (msgspec.DecodeError, jsonschema_rs.ValidationError, ValueError) as error:
        raise InvalidValue(f"The JSON Schema cannot be used: {error}", param=grammar.param) from error
    return schema


def is_free(schema: Schema) -> bool:
    """Whether any object conforms, as with `json_object`."""
    return schema.get("type") == "object" and not fields(schema)


def free(quoted: Quoted, schema: Schema) -> str:
    told = {"answer": quoted.answer, "source": quoted.source}
    fits = jsonschema_rs.validator_for(dict(schema), offline=True).is_valid(told)
    return msgspec.json.encode(told if fits else {}).decode()


def answered(
    schema: Schema, question: str, texts: Sequence[str], reads: Reads, today: date
) -> Generator[None, None, str | Refused]:
    """JSON that is valid against `schema`, filled from `texts`, or from the question itself where there is none.

    What is not found is null where it may be, an empty list where it may be, and left out where it is not required;
    where it may be none of these there is no honest answer of that form, and Refused says what is missing.
    """
    answer = whole(schema)
    if answer.kind == "object" and not texts:
        topic = " ".join([answer.about, str(schema.get("title") or "")])
        told: Any = yield from filled(answer.inner, question, topic, reads, today)
    else:
        reader = _Reader(question, texts or [question], reads, today)
        told = yield from reader.value(replace(answer, name=answer.name or "answer"))
    if told is _NOTHING and answer.kind == "object":
        told = {}
    if isinstance(told, dict):
        told = _emptied(answer.inner, defaulted(answer.inner, told))
    lacks = [each for each in answer.inner if isinstance(told, dict) and lacking(each, told)]
    if told is _NOTHING or lacks:
        return _refused(lacks)
    return _valid(schema, answer, told)


def _valid(schema: Schema, answer: Field, told: Any) -> str | Refused:
    validator = jsonschema_rs.validator_for(dict(schema), offline=True)
    while (fault := next(validator.iter_errors(told), None)) is not None:
        at = fault.instance_path[0] if fault.instance_path else None
        unfit = next((each for each in answer.inner if each.name == at), None)
        if (
            unfit is None
            or not isinstance(told, dict)
            or (unfit.required and (not unfit.nullable or told[unfit.name] is None))
        ):
            return _refused([unfit] if unfit is not None else [])
        if unfit.required:
            told[unfit.name] = None
        else:
            del told[unfit.name]
    return msgspec.json.encode(told).decode()


def _emptied(wanted: Sequence[Field], told: Mapping[str, Any]) -> dict[str, Any]:
    """With empty lists for required arrays of which nothing was found: nothing is in them."""
    got = dict(told)
    for each in wanted:
        if each.required and each.kind == "array" and each.name not in got and each.accepts([]):
            got[each.name] = []
        elif each.kind == "object" and (each.required or each.name in got):
            got[each.name] = _emptied(each.inner, got.get(each.name) or {})
    return {each.name: got[each.name] for each in wanted if each.name in got}


def _refused(lacks: Sequence[Field]) -> Refused:
    asked = [inner.plain for each in lacks for inner in (leaves(each.inner) if each.kind == "object" else [each])]
    what = f": {', '.join(asked)}" if asked else ""
    return Refused(f"I did not find what the answer has to hold{what}.")


class _Reader:
    """Finds one value after the other in several texts."""

    def __init__(self, question: str, texts: Sequence[str], reads: Reads, today: date) -> None:
        self._texts = texts
        self._reads = reads
        self._today = today
        self._question = question
        self._named = named(question)

    def value(self, each: Field) -> Generator[None, None, Any]:
        """_NOTHING where the texts do not say it."""
        if each.kind == "object":
            told = {}
            for inner in each.inner:
                value = yield from self.value(inner)
                if value is not _NOTHING:
                    told[inner.name] = value
            return told or _NOTHING
        if each.kind == "const":
            return each.options[0]
        spans = yield from self._reads.answering(self._asked(each), self._texts)
        if each.kind == "array":
            return self._several(each, spans)
        for span in spans:
            value = yield from self._at(each, span)
            if value is not None and each.accepts(value):
                return value
        return _NOTHING

    def _asked(self, each: Field) -> str:
        """The field's question, about what the user's own question names."""
        if not each.name or (each.name == "answer" and not each.schema.get("description")):
            return self._question
        asked = each.question
        if self._named and not set(words(self._named)) & set(words(asked)):
            return f"{asked.rstrip('?')} of {self._named}?"
        return asked

    def _at(self, each: Field, span: Span) -> Generator[None, None, Any]:
        """The value that a span or the sentence around it says; None where it says none of the field's kind."""
        text = self._texts[span.passage]
        start, end = _sentence(text, span)
        said, place = text[start:end], span.start - start
        if each.kind in ("integer", "number"):
            found = sorted(values.numbers(said), key=lambda one: abs(one.start - place))
            fit = (one.value for one in found if each.kind == "number" or float(one.value).is_integer())
            return next(fit, None)
        if each.kind == "boolean":
            return values.agreed(said) if values.agreed(said) is not None else not values.negated(said)
        if each.kind == "enum":
            return (yield from option(each, Message(said), self._reads))
        if near := sorted(typed(each, said), key=lambda one: abs(one.start - place)):
            return written(each, str(near[0].value), self._today)
        if each.kind in ("email", "url", "host", "phone") or each.iso:
            return None
        clean = cleaned(text, span)
        return None if clean is None else clean.value

    def _several(self, each: Field, spans: Sequence[Span]) -> Any:
        item = each.inner[0] if each.inner else None
        if item is None or item.kind in ("object", "array"):
            return _NOTHING
        found: list[Any] = []
        for span in spans:
            text = self._texts[span.passage]
            start, end = _sentence(text, span)
            said = text[start:end]
            if item.kind == "enum":
                found += [one.value for one in values.chosen(said, [str(option) for option in item.options])]
            elif item.kind in ("integer", "number"):
                found += [one.value for one in values.numbers(said)]
            else:
                found += items(said, span.start - start, span.end - start)
        told = [value for value in dict.fromkeys(found) if item.accepts(value)]
        return told if told and each.accepts(told) else _NOTHING


def _sentence(text: str, span: Span) -> tuple[int, int]:
    for unit in split(text):
        if unit.start <= span.start < unit.end:
            return unit.start, max(unit.end, span.end)
    return span.start, span.end
