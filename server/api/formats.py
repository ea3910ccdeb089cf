"""What an answer has to conform to, by every name that clients have for it: OpenAI's, llama.cpp's, vLLM's and TGI's."""

import re
from typing import Any

import msgspec

from server.api.wire import Generation
from server.errors import InvalidValue
from server.models.engine import Grammar
from server.models.gbnf import as_lark
from server.models.tool_formats.lark import quoted

_KINDS = {
    "json_schema": "json",
    "grammar": "grammar",
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}
"""By the field: which of the members of `structured_outputs` it is."""

_FIELDS = (*_KINDS, "structured_outputs", "response_format")
_is_lark = re.compile(r"^\s*(%llguidance\b|start\s*:(?!:=))", re.MULTILINE)
_OBJECT = '{"type": "object"}'


def format_field(asked: Generation) -> str | None:
    """The field that says what the answer is to be; None where it is free. Raises InvalidValue where two do."""
    given = [name for name in _FIELDS if getattr(asked, name) not in (None, "")]  # llama.cpp's clients send empty ones
    if asked.response_format and asked.response_format.get("type") == "text":
        given.remove("response_format")
    if len(given) > 1:
        raise InvalidValue(f"`{given[0]}` and `{given[1]}` both say what the answer is to be.", param=given[0])
    return given[0] if given else None


def grammar(asked: Generation) -> Grammar | None:
    """What the answer has to conform to. Raises InvalidValue, naming the field, where that is not well said."""
    field = format_field(asked)
    if field is None:
        return None
    value = getattr(asked, field)
    if field == "response_format":
        return _of_response_format(value)
    if field == "structured_outputs":
        return _of_structured_outputs(value)
    return _made(_KINDS[field], value, field)


def _of_response_format(wanted: dict[str, Any]) -> Grammar:
    """OpenAI's types, and some of others: {"type": "regex", "pattern"}, {"type": "lark" | "grammar", "grammar"}.

    llama.cpp puts the schema beside the type; TGI calls all that follows a type its `value`.
    """
    param = "response_format"
    match wanted:
        case {"type": "json_object"} if not {"schema", "value"} & wanted.keys():
            return Grammar("json_schema", _OBJECT, param)
        case {"type": "json_object" | "json"}:
            return _beside(wanted, "schema", "json", param)
        case {"type": "json_schema", "json_schema": {"schema": schema}} | {
            "type": "json_schema",
            "value": {"schema": schema},
        }:
            return _made("json", schema, f"{param}.json_schema.schema")
        case {"type": "json_schema", "schema": _}:
            return _beside(wanted, "schema", "json", param)
        case {"type": "json_schema"}:
            raise InvalidValue("`json_schema` needs an object `schema`.", param=f"{param}.json_schema")
        case {"type": "regex"}:
            return _beside(wanted, "pattern", "regex", param)
        case {"type": "lark", "grammar": str(text)}:
            return Grammar("lark", text, f"{param}.grammar")
        case {"type": "lark" | "grammar"}:
            return _beside(wanted, "grammar", "grammar", param)
        case _:
            raise InvalidValue(
                "`response_format.type` is text, json_object, json_schema, regex, grammar or lark.",
                param=f"{param}.type",
            )


def _beside(wanted: dict[str, Any], name: str, kind: str, param: str) -> Grammar:
    name = "value" if "value" in wanted and name not in wanted else name
    if name not in wanted:
        raise InvalidValue(f"`{param}` needs a `{name}`.", param=f"{param}.{name}")
    return _made(kind, wanted[name], f"{param}.{name}")


def _of_structured_outputs(wanted: dict[str, Any]) -> Grammar:
    param = "structured_outputs"
    kinds = ("json", "regex", "choice", "grammar", "json_object")
    given = [kind for kind in kinds if wanted.get(kind) is not None and wanted[kind] is not False]
    if len(given) != 1:
        raise InvalidValue(f"`{param}` is an object with one of {', '.join(kinds)}.", param=param)
    return _made(given[0], wanted[given[0]], f"{param}.{given[0]}")


def _made(kind: str, value: Any, param: str) -> Grammar:
    match kind, value:
        case "json", dict(schema):
            return Grammar("json_schema", msgspec.json.encode(schema).decode(), param)
        case "json", str(text):
            return _made(kind, _read(text, param), param)
        case "json_object", True:
            return Grammar("json_schema", _OBJECT, param)
        case "regex", str(pattern):
            return Grammar("regex", pattern, param)
        case "choice", [*words] if words and all(isinstance(word, str) and word for word in words):
            return Grammar("lark", f"start: {' | '.join(map(quoted, words))}", param)
        case "grammar", str(text):
            return written(text, param)
        case _:
            raise InvalidValue(f"`{param}` has the wrong type.", param=param)


def _read(text: str, param: str) -> dict[str, Any]:
    """A schema that was sent as text."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidValue(f"`{param}` is no JSON Schema: {error}.", param=param) from error


def written(text: str, param: str) -> Grammar:
    """A grammar in Lark or in llama.cpp's GBNF. Raises InvalidValue, naming the field `param`, where it is neither."""
    if _is_lark.search(text):
        return Grammar("lark", text, param)
    try:
        return Grammar("lark", as_lark(text), param)
    except ValueError as error:
        raise InvalidValue(f"`{param}` is no GBNF grammar: {error}.", param=param) from error
