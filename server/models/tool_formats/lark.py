"""Writes the pieces of a tool grammar in llguidance's dialect of Lark (its docs/syntax.md and docs/json_schema.md)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from server.models.tool_formats.pieces import ToolSpec

# The spacing chat templates write calls with, and no room for endless blanks.
_SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
# Keywords that may name more properties than `properties` does.
_NAMING = frozenset(
    (
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "propertyNames",
        "$ref",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "dependentSchemas",
        "minProperties",
        "x-guidance",
    )
)


def quoted(text: str) -> str:
    """`text` as a Lark string."""
    return msgspec.json.encode(text).decode()


def literal(text: str, special: Mapping[str, int] | None) -> str:
    """An expression for `text`, in which each text of `special` is that one token.

    llguidance never takes a special token for the characters it is written with, and its own `<name>` syntax cannot
    spell names in brackets, so tokens go by their ids.
    """
    if not special:
        return quoted(text)
    names = "|".join(re.escape(name) for name in sorted(special, key=len, reverse=True) if name)
    parts = re.split(f"({names})", text)
    return " ".join(f"<[{special[part]}]>" if part in special else quoted(part) for part in parts if part)


def json_schema(schema: Mapping[str, Any]) -> str:
    """A schema as an expression of the grammar."""
    return f"%json {msgspec.json.encode({'x-guidance': _SPACING, **schema}).decode()}"


def object_schema(parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """The schema of a call's arguments: always an object, and of no other properties where it lists its own.

    JSON Schema would let a model add properties nobody declared, and models that may write without end do. What is
    made here is a part of what the function declared, so arguments still conform to it.
    """
    schema = dict(parameters or {"properties": {}})
    if not isinstance(schema.get("type"), str):
        schema["type"] = "object"
    listed, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(listed, dict) or not isinstance(required, list) or _NAMING & schema.keys():
        return schema
    if all(name in listed for name in required if isinstance(name, str)):
        schema["additionalProperties"] = False
    return schema


def choice(rule: str, options: Iterable[str]) -> str:
    """A rule that is one of `options`, one a line."""
    return f"{rule}: " + f"\n{' ' * len(rule)}| ".join(options)


def named(tools: Sequence[ToolSpec]) -> Sequence[ToolSpec]:
    """The tools, once each. Raises ValueError where there are none: such a grammar would have no words."""
    if not tools:
        raise ValueError("a grammar of tool calls needs at least one tool")
    return list({tool.name: tool for tool in tools}.values())


def json_calls(tools: Sequence[ToolSpec], key: str) -> str:
    """Rule `object`: a call as one JSON object, {"name": ..., key: {...}}, of one of `tools`."""
    return choice("object", (_json_call(tool, key) for tool in named(tools)))


def _json_call(tool: ToolSpec, key: str) -> str:
    beginning = f'{{"name": {quoted(tool.name)}, {quoted(key)}: '
    return f"{quoted(beginning)} {json_schema(object_schema(tool.parameters))} {quoted('}')}"
