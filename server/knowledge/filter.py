"""OpenAI's filter grammar, checked against a collection's attributes and written as the store's SQL. Pure."""

import difflib
from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from server.errors import InvalidValue
from server.knowledge.attributes import Types, column, open_kind, open_value, quoted
from server.knowledge.document import AttributeValue

MAX_DEPTH = 8
MAX_COMPARISONS = 64
MAX_VALUES = 1024
MAX_TEXT = 4096

BUILT_IN: Mapping[str, str] = dict.fromkeys(("filename", "uri", "document_id", "heading", "title"), "string")
"""Keys every collection has; a declared attribute of the same name goes before."""

_PARAM = "filters"


class Comparison(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """One attribute beside one value, or beside a list of them for `in` and `nin`."""

    key: str
    value: AttributeValue | list[AttributeValue]


class Eq(Comparison, frozen=True, tag="eq"): ...


class Ne(Comparison, frozen=True, tag="ne"): ...


class Gt(Comparison, frozen=True, tag="gt"): ...


class Gte(Comparison, frozen=True, tag="gte"): ...


class Lt(Comparison, frozen=True, tag="lt"): ...


class Lte(Comparison, frozen=True, tag="lte"): ...


class In(Comparison, frozen=True, tag="in"): ...


class Nin(Comparison, frozen=True, tag="nin"): ...


class And(msgspec.Struct, frozen=True, tag_field="type", tag="and", forbid_unknown_fields=True):
    filters: "list[Filter]"


class Or(msgspec.Struct, frozen=True, tag_field="type", tag="or", forbid_unknown_fields=True):
    filters: "list[Filter]"


Filter = Eq | Ne | Gt | Gte | Lt | Lte | In | Nin | And | Or

_OPERATORS: Mapping[type[Comparison], str] = {
    Eq: "=",
    Ne: "<>",
    Gt: ">",
    Gte: ">=",
    Lt: "<",
    Lte: "<=",
    In: "IN",
    Nin: "NOT IN",
}
_WORDS: Mapping[str, str] = {
    "string": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


def parse_filter(value: object) -> Filter:
    """The filter that decoded JSON holds. Raises InvalidValue that says where it is wrong."""
    try:
        found: Filter = msgspec.convert(value, Filter)
    except msgspec.ValidationError as error:
        raise _wrong(f"filters: {error}") from error
    except RecursionError as error:
        raise _wrong(f"filters are nested more than {MAX_DEPTH} deep") from error
    return found


def to_sql(found: Filter, types: Types) -> str:
    """The condition in the store's SQL. `types` are the declared attributes; None where each file brings its own.

    `ne` and `nin` also hold where a document lacks the attribute. Raises InvalidValue.
    """
    if _comparisons(found, 1) > MAX_COMPARISONS:
        raise _wrong(f"filters hold more than {MAX_COMPARISONS} comparisons")
    return _sql(found, types)


def _comparisons(found: Filter, depth: int) -> int:
    if depth > MAX_DEPTH:
        raise _wrong(f"filters are nested more than {MAX_DEPTH} deep")
    if isinstance(found, And | Or):
        if not found.filters:
            raise _wrong("filters: an `and` or `or` needs at least one filter")
        return sum(_comparisons(each, depth + 1) for each in found.filters)
    return 1


def _sql(found: Filter, types: Types) -> str:
    if isinstance(found, And | Or):
        word = " AND " if isinstance(found, And) else " OR "
        return "(" + word.join(_sql(each, types) for each in found.filters) + ")"
    if types is None and isinstance(found, In | Nin) and isinstance(found.value, list) and found.value:
        return _any_kind(found, found.value)
    name, kind = _open(found) if types is None else _declared(found.key, types)
    return _comparison(found, name, kind)


def _comparison(found: Comparison, name: str, kind: str) -> str:
    condition = f"{name} {_OPERATORS[type(found)]} {_operand(found, kind)}"
    return f"({name} IS NULL OR {condition})" if isinstance(found, Ne | Nin) else f"({condition})"


def _declared(key: str, types: Mapping[str, str]) -> tuple[str, str]:
    """Column and type of a declared attribute, or of a built-in one."""
    if key in types:
        return f"`{column(key)}`", types[key]
    if key in BUILT_IN:
        return f"`{key}`", BUILT_IN[key]
    known = [*types, *BUILT_IN]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"this collection has: {', '.join(known)}"
    raise _wrong(f"filters: unknown key `{key[:80]}`; {hint}")


def _open(found: Comparison) -> tuple[str, str]:
    """As `_declared` where nothing is declared: the value compared with says which type is meant."""
    value = found.value[0] if isinstance(found.value, list) and found.value else found.value
    kind = "string" if isinstance(value, list) else open_kind(value)
    name = open_value(_storable("key", found.key), kind)
    if kind == "string" and found.key in BUILT_IN:
        name = f"coalesce({name}, `{found.key}`)"
    return name, kind


def _any_kind(found: In | Nin, values: Sequence[AttributeValue]) -> str:
    """A list may mix types; each type is compared with the attribute's value of that type."""
    ordered = sorted(values, key=open_kind)
    alike = [type(found)(found.key, list(each)) for _, each in groupby(ordered, key=open_kind)]
    word = " OR " if isinstance(found, In) else " AND "
    return "(" + word.join(_comparison(each, *_open(each)) for each in alike) + ")"


def _operand(found: Comparison, kind: str) -> str:
    if isinstance(found, In | Nin):
        if not isinstance(found.value, list) or not 1 <= len(found.value) <= MAX_VALUES:
            raise _wrong(f"filters: the value for `{found.key}` should be a list of 1 to {MAX_VALUES} values")
        return "(" + ", ".join(_literal(found.key, each, kind) for each in found.value) + ")"
    if isinstance(found.value, list):
        raise _wrong(f"filters: the value for `{found.key}` should be {_WORDS[kind]}; lists go with `in` and `nin`")
    if kind == "bool" and not isinstance(found, Eq | Ne):
        raise _wrong(f"filters: `{found.key}` is true or false and has no order")
    return _literal(found.key, found.value, kind)


def _literal(key: str, value: AttributeValue, kind: str) -> str:
    if kind == "bool" and isinstance(value, bool):
        return "true" if value else "false"
    if kind == "string" and isinstance(value, str):
        return quoted(_storable(key, value))
    if kind in ("int", "float") and isinstance(value, int | float) and not isinstance(value, bool):
        return _number(key, value, kind)
    raise _wrong(
        f"filters: the value for `{key}` should be {_WORDS[kind]}, it is {msgspec.json.encode(value).decode()[:40]}"
    )


def _number(key: str, value: int | float, kind: str) -> str:
    if not abs(value) < 1e308:  # written so that it also refuses what is not a number
        raise _wrong(f"filters: the value for `{key}` is not a finite number")
    if kind == "float":
        return repr(float(value))
    if isinstance(value, float) and not value.is_integer():
        raise _wrong(f"filters: the value for `{key}` should be a whole number, it is {value}")
    if not -(2**63) <= value < 2**63:
        raise _wrong(f"filters: the value for `{key}` does not fit in 64 bits")
    return str(int(value))


def _storable(key: str, value: str) -> str:
    if len(value) > MAX_TEXT or any("\ud800" <= char <= "\udfff" for char in value):
        raise _wrong(f"filters: the value for `{key}` should be valid text of at most {MAX_TEXT} characters")
    return value


def _wrong(message: str) -> InvalidValue:
    return InvalidValue(message, param=_PARAM)
