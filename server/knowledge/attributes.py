"""What documents carry to be filtered by: columns of declared types, or one column for whatever each brings. Pure.

A recipe declares its attributes (`Types` maps name to string, int, float or bool). A collection that clients make
declares none (`Types` is None): its attributes lie in one JSON column, each under a key that names its type, so that
the number 1, the text "1" and `true` are never taken for one another.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import msgspec

from server.knowledge.document import AttributeValue, Unreadable

Types = Mapping[str, str] | None

OPEN_COLUMN = "attributes"
MAX_OPEN, MAX_KEY, MAX_TEXT = 16, 64, 512
"""OpenAI's bounds for attributes that nobody declared."""

_ACCEPTED: Mapping[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
_CALLED = {"string": "a string", "int": "a whole number", "float": "a number", "bool": "true or false"}
_MARKS = {"string": "s:", "float": "n:", "bool": "b:"}
_READERS = {"string": "json_get_string", "float": "json_get_float", "bool": "json_get_bool"}


def columns(types: Types) -> dict[str, str]:
    """The table's columns for them: name to string, int, float, bool or json."""
    return {OPEN_COLUMN: "json"} if types is None else {column(name): kind for name, kind in types.items()}


def column(name: str) -> str:
    """The table's column for a declared attribute; no attribute shares one with a built-in column."""
    return f"attribute_{name}"


def open_value(key: str, kind: str) -> str:
    """SQL for the undeclared attribute `key`, NULL where a document has none of this kind."""
    return f"{_READERS[kind]}({OPEN_COLUMN}, {quoted(_MARKS[kind] + key)})"


def open_kind(value: AttributeValue) -> str:
    return "bool" if isinstance(value, bool) else "string" if isinstance(value, str) else "float"


def quoted(text: str) -> str:
    """`text` as an SQL string literal; a quote is the only character with a meaning inside one."""
    return "'" + text.replace("'", "''") + "'"


def written(attributes: Mapping[str, AttributeValue], types: Types) -> dict[str, AttributeValue | None]:
    """A document's attributes by column, as the table holds them."""
    if types is not None:
        return {column(name): _held(attributes.get(name), kind) for name, kind in types.items()}
    marked = {_MARKS[open_kind(value)] + name: value for name, value in attributes.items()}
    return {OPEN_COLUMN: msgspec.json.encode(marked).decode()}


def _held(value: AttributeValue | None, kind: str) -> AttributeValue | None:
    """A whole number past 2**53 would be refused by a column of floats, which holds the nearest one."""
    return float(value) if kind == "float" and value is not None else value


def read(row: Mapping[str, Any], types: Types) -> dict[str, AttributeValue]:
    """The attributes a row's document has."""
    if types is not None:
        return {name: value for name in types if (value := row.get(column(name))) is not None}
    marked: dict[str, AttributeValue] = msgspec.json.decode(row[OPEN_COLUMN])
    return {key[2:]: value for key, value in marked.items()}


def check(attributes: Mapping[str, AttributeValue], types: Types) -> None:
    """Raises Unreadable where an attribute is not declared, has another type than declared, or is out of bounds."""
    if types is None:
        _check_open(attributes)
        return
    for name, value in attributes.items():
        if name not in types:
            declared = f"this collection has: {', '.join(types)}" if types else "this collection declares none"
            raise Unreadable(f"attribute `{name[:MAX_KEY]}` is not declared; {declared}")
        typed(name, value, types[name])


def fits(value: AttributeValue, kind: str) -> bool:
    """Whether an attribute's value is of a declared type."""
    try:
        typed("", value, kind)
    except Unreadable:
        return False
    return True


def fitting(attributes: Mapping[str, AttributeValue], types: Types) -> dict[str, AttributeValue]:
    """Those that a table with columns for `types` can hold."""
    if types is None:
        return dict(attributes)
    return {name: value for name, value in attributes.items() if name in types and fits(value, types[name])}


def typed(name: str, value: object, kind: str) -> AttributeValue:
    """The value as its column holds it. Raises Unreadable."""
    if kind == "string" and isinstance(value, date):
        return value.isoformat()  # YAML reads 2026-11-24 as a date; its author wrote a string
    is_wrong_bool = isinstance(value, bool) and kind != "bool"
    if is_wrong_bool or not isinstance(value, _ACCEPTED[kind]):
        raise Unreadable(f"attribute `{name}` should be {_CALLED[kind]}, it is {str(value)[:40]!r}")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise Unreadable(f"attribute `{name}` does not fit in 64 bits")
    if isinstance(value, str) and not _is_encodable(value):
        raise Unreadable(f"attribute `{name}` holds half a character")
    return float(value) if kind == "float" else value  # type: ignore[return-value,arg-type]  # one of the four, by _ACCEPTED


def _check_open(attributes: Mapping[str, AttributeValue]) -> None:
    if len(attributes) > MAX_OPEN:
        raise Unreadable(f"a file has at most {MAX_OPEN} attributes, these are {len(attributes)}")
    for name, value in attributes.items():
        if not 1 <= len(name) <= MAX_KEY or not _is_encodable(name):
            raise Unreadable(f"an attribute's name is valid text of 1 to {MAX_KEY} characters, not {name[:MAX_KEY]!r}")
        if isinstance(value, str) and (len(value) > MAX_TEXT or not _is_encodable(value)):
            raise Unreadable(f"attribute `{name}` should be valid text of at most {MAX_TEXT} characters")
        if isinstance(value, int | float) and not abs(value) < 1e308:  # written so that it refuses NaN too
            raise Unreadable(f"attribute `{name}` is not a finite number")


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)
