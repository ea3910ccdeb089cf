"""Files, vector stores and searches: what a body has to be beyond the types of its fields."""

from server.api.precise.forms import BOOL, NULL, Schema, absent, array, enum, exactly_one, object_with, optional, ref
from server.knowledge import attributes
from server.knowledge.filter import BUILT_IN, MAX_COMPARISONS, MAX_DEPTH, MAX_TEXT, MAX_VALUES

_NUMBER: Schema = {"type": "number", "exclusiveMinimum": -1e308, "exclusiveMaximum": 1e308}
_FLOAT32: Schema = {"type": "number", "minimum": -3e38, "maximum": 3e38}
_LONG: Schema = {"type": "string", "maxLength": MAX_TEXT}
_PAGE = optional({"type": "string", "pattern": "^(page_[0-9]{1,6})?$"})
_WEIGHED = {"anyOf": [{"properties": {name: {"exclusiveMinimum": 0}}} for name in ("embedding_weight", "text_weight")]}


def _closed(needed: dict[str, Schema]) -> Schema:
    return object_with(needed) | {"additionalProperties": False}


def _filter(name: str, comparisons: list[Schema]) -> dict[str, Schema]:
    """A filter's schema by its name, and those of the filters in it, each as deep as filters may be nested there."""
    found: dict[str, Schema] = {f"{name}{MAX_DEPTH}": {"anyOf": comparisons}}
    deepest = ref(f"{name}{MAX_DEPTH}")
    for depth in range(MAX_DEPTH - 1, 0, -1):
        inner = array(ref(f"{name}{depth + 1}"))
        found[name if depth == 1 else f"{name}{depth}"] = {
            "anyOf": [deepest, _closed({"type": enum("and", "or"), "filters": inner})]
        }
    found[name]["description"] = f"It holds at most {MAX_COMPARISONS} comparisons, all in all."
    return found


def _comparisons(key: Schema, values: list[Schema]) -> list[Schema]:
    ordered = [each for each in values if each is not BOOL]
    found = [_closed({"type": enum("eq", "ne"), "key": key, "value": {"anyOf": values}})]
    if ordered:
        found.append(_closed({"type": enum("gt", "gte", "lt", "lte"), "key": key, "value": {"anyOf": ordered}}))
    found.append(_closed({"type": enum("in", "nin"), "key": key, "value": array({"anyOf": values}, most=MAX_VALUES)}))
    return found


_OPEN_KEY: Schema = {"type": "string", "maxLength": MAX_TEXT}
_ATTRIBUTES: Schema = {
    "type": "object",
    "maxProperties": attributes.MAX_OPEN,
    "propertyNames": {"minLength": 1, "maxLength": attributes.MAX_KEY},
    "additionalProperties": {"anyOf": [{"type": "string", "maxLength": attributes.MAX_TEXT}, _NUMBER, BOOL]},
}
_KINDS: dict[str, Schema] = {
    "string": _LONG,
    "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "float": _NUMBER,
    "bool": BOOL,
}
"""By the type that a recipe declares: the values that are compared with."""

FIELDS: dict[str, dict[str, Schema]] = {
    "RetrieveRequest": {"filters": optional(ref("DeclaredFilter")), "page": _PAGE},
    "AskedRetrieval": {"filters": optional(ref("DeclaredFilter"))},
    "SearchStore": {"filters": optional(ref("OpenFilter")), "page": _PAGE},
    "PushDocument": {"text": {"type": "string", "pattern": "\\S"}, "vector": optional(array(_FLOAT32))},
    "AttachFile": {"attributes": optional(_ATTRIBUTES)},
    "ChangeFile": {"attributes": {"anyOf": [_ATTRIBUTES, NULL]}},
    "CreateBatch": {"attributes": optional(_ATTRIBUTES)},
}

RULES: dict[str, list[Schema]] = {
    "AskedRetrieval": [
        {
            "anyOf": [
                {"properties": {"when": enum("always", "auto")}},
                {
                    "properties": {
                        "when": enum("never"),
                        **{name: absent() for name in ("collections", "k", "filters", "ranking_options", "tiers")},
                    },
                },
            ]
        }
    ],
    "CreateBatch": [exactly_one("file_ids", "files")],
    "FileUpload": [
        {
            "dependentRequired": {
                "expires_after[anchor]": ["expires_after[seconds]"],
                "expires_after[seconds]": ["expires_after[anchor]"],
            }
        }
    ],
    "HybridWeights": [_WEIGHED],
    "HybridSearch": [_WEIGHED],
}

LOCAL_TIERS = optional(array(enum("hot", "warm")))
"""The `tiers` of a search where nothing has a cold one."""

NAMED: dict[str, Schema] = _filter("OpenFilter", _comparisons(_OPEN_KEY, [_LONG, _NUMBER, BOOL]))


def declared_filter(declared: dict[str, str]) -> dict[str, Schema]:
    """As NAMED: filters over collections that declare these attributes, each with its kind."""
    kinds = {**BUILT_IN, **declared}
    found: list[Schema] = []
    for kind in dict.fromkeys(kinds.values()):
        names = enum(*(name for name, each in kinds.items() if each == kind))
        found += _comparisons(names, [_KINDS[kind]])
    return _filter("DeclaredFilter", found)
