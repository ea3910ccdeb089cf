"""The forms that the schemas of bodies are put together from."""

from typing import Any

from server.api.document import REF

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SOME: Schema = {"type": "string", "minLength": 1}
OBJECT: Schema = {"type": "object"}
NULL: Schema = {"type": "null"}
BOOL: Schema = {"type": "boolean"}


def ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


def optional(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, NULL], "default": None}


def absent(*also: object) -> Schema:
    """A field that may only be null, or one of these values that say as much."""
    return {"enum": [None, *also], "default": None}


def object_with(needed: dict[str, Schema], beside: dict[str, Schema] | None = None) -> Schema:
    """With all fields of `needed`; those of `beside` it may have."""
    return {"type": "object", "properties": {**needed, **(beside or {})}, "required": [*needed]}


def enum(*values: object) -> Schema:
    return {"enum": [*values]}


def array(items: Schema, *, most: int | None = None, least: int = 1) -> Schema:
    return {"type": "array", "items": items, "minItems": least} | ({} if most is None else {"maxItems": most})


def either(*choices: dict[str, Schema]) -> Schema:
    """Fields have one of these combinations; a field that a combination requires cannot be null in it."""
    return {
        "anyOf": [
            {"properties": each, "required": [name for name, field in each.items() if not _nullable(field)]}
            for each in choices
        ]
    }


def _nullable(schema: Schema) -> bool:
    return None in schema.get("enum", ()) or NULL in schema.get("anyOf", ())


def exactly_one(*names: str) -> Schema:
    there = {"not": {"enum": [None]}}
    return either(*({each: there if each == name else absent() for each in names} for name in names))


IDS = array({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})
"""Token ids."""
