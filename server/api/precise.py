"""What a body has to be beyond the types of its fields, as JSON Schema: for the document, which is to say all of it.

Fields that clients fill in ways of their own are decoded leniently and checked where they are read. Here stands what
those checks let through, so that whoever makes requests from the document is not refused. What no schema can say, that
one field names what another has, is said in words beside the field.
"""

from typing import Any

import msgspec

from server.api.document import REF
from server.api.ollama.wire import OllamaOptions
from server.knowledge.filter import BUILT_IN, MAX_COMPARISONS, MAX_DEPTH, MAX_TEXT, MAX_VALUES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_SOME: Schema = {"type": "string", "minLength": 1}
_OBJECT: Schema = {"type": "object"}
_NULL: Schema = {"type": "null"}


def ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


def optional(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, _NULL], "default": None}


def absent(*also: object) -> Schema:
    """A field that may only be null, or one of these values that say as much."""
    return {"enum": [None, *also], "default": None}


def _object(needed: dict[str, Schema], beside: dict[str, Schema] | None = None) -> Schema:
    """With all fields of `needed`; those of `beside` it may have."""
    return {"type": "object", "properties": {**needed, **(beside or {})}, "required": [*needed]}


def _is(*values: object) -> Schema:
    return {"enum": [*values]}


def _list(items: Schema, *, most: int | None = None, least: int = 1) -> Schema:
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
    return None in schema.get("enum", ()) or _NULL in schema.get("anyOf", ())


def _exactly_one(*names: str) -> Schema:
    there = {"not": {"enum": [None]}}
    return either(*({each: there if each == name else absent() for each in names} for name in names))


# ---- tools ----------------------------------------------------------------------------------------------------------

_FUNCTION = _object({"name": _SOME}, {"parameters": optional(_OBJECT)})
_NAMED = _object({"name": _TEXT})
_FOREIGN: Schema = {"not": {"enum": ["function"]}}
"""The type of a tool that is passed over, as clients offer those to every server."""

_TOOLS = optional(
    _list(
        {
            "anyOf": [
                _object({"type": _is("function"), "function": _FUNCTION}),
                {"type": "object", "properties": {"type": _FOREIGN}},
            ]
        },
        least=0,
    )
)
_FLAT_TOOLS = optional(
    _list(
        {
            "anyOf": [
                _object({"type": _is("function"), "name": _SOME}, {"parameters": optional(_OBJECT)}),
                _object({"type": {"type": "string", **_FOREIGN}}),
            ]
        },
        least=0,
    )
)
_CHOICES = _is("none", "auto", "required")
_MODE = _is("auto", "required")
_A_FUNCTION = _object({"type": _is("function"), "function": _NAMED})
_TOOL_CHOICE = optional(
    _CHOICES,
    _A_FUNCTION,
    _object({"type": _is("allowed_tools"), "allowed_tools": _object({"mode": _MODE, "tools": _list(_A_FUNCTION)})}),
) | {"description": "The functions it names are in `tools`."}
_FLAT_FUNCTION = _object({"type": _is("function"), "name": _TEXT})
_FLAT_CHOICE = optional(
    _CHOICES,
    _FLAT_FUNCTION,
    _object({"type": _is("allowed_tools"), "tools": _list(_FLAT_FUNCTION)}, {"mode": optional(_MODE)}),
) | {"description": "The functions it names are in `tools`."}


_HAS_FUNCTION: Schema = {"type": "array", "contains": _object({"type": _is("function")})}
_UNFORCED = absent("none", "auto")
_CHOSEN = either({"tool_choice": _UNFORCED}, {"tools": _HAS_FUNCTION})
"""A choice that asks for a call needs a function in `tools`."""

# ---- formats --------------------------------------------------------------------------------------------------------

_JSON_TEXT: Schema = {"type": "string", "format": "json-schema", "contentMediaType": "application/schema+json"}
_REGEX: Schema = {"type": "string", "format": "regex"}
_GRAMMAR: Schema = {"type": "string", "format": "grammar", "description": "A grammar, in GBNF or in Lark."}
_WORDS = _list(_SOME)
_PLAIN = _object({"type": _is("text")})
_UNBOUND: Schema = {"anyOf": [_PLAIN, _NULL], "default": None}
_SCHEMA: Schema = {"anyOf": [_OBJECT, _JSON_TEXT]}
_EMPTY = absent("")
_BARE = {"not": {"anyOf": [{"required": ["schema"]}, {"required": ["value"]}]}}

_RESPONSE_FORMAT = optional(
    _PLAIN,
    _object({"type": _is("json_object")}) | _BARE,
    _object({"type": _is("json_object", "json", "json_schema"), "schema": _SCHEMA})
    | {"not": {"required": ["json_schema"]}},
    _object({"type": _is("json_schema"), "json_schema": _object({"schema": _SCHEMA})}),
    _object({"type": _is("regex"), "pattern": _REGEX}),
    _object({"type": _is("lark", "grammar"), "grammar": _GRAMMAR}),
)
_TEXT_FORMAT = optional(
    _PLAIN,
    _object({"type": _is("json_object")}) | _BARE,
    _object({"type": _is("json_schema"), "schema": _SCHEMA}),
    _object({"type": _is("regex"), "pattern": _REGEX}),
    _object({"type": _is("lark", "grammar"), "grammar": _GRAMMAR}),
)
_KINDS_OF_FORMAT = {"json": _SCHEMA, "regex": _REGEX, "choice": _WORDS, "grammar": _GRAMMAR, "json_object": _is(True)}
_STRUCTURED = optional(
    *(
        _object({name: schema}, {each: absent(False) for each in _KINDS_OF_FORMAT if each != name})
        for name, schema in _KINDS_OF_FORMAT.items()
    )
)
_GENERATION: dict[str, Schema] = {
    "response_format": _RESPONSE_FORMAT,
    "json_schema": optional(_SCHEMA),
    "guided_json": optional(_SCHEMA),
    "guided_regex": optional(_REGEX),
    "guided_choice": optional(_WORDS),
    "guided_grammar": optional(_GRAMMAR),
    "grammar": optional(_GRAMMAR),
    "structured_outputs": _STRUCTURED,
    "logit_bias": optional(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
}
_STREAMS = either({"stream_options": absent()}, {"stream": _is(True)})

# ---- conversations --------------------------------------------------------------------------------------------------

_KWARGS = optional({"type": "object", "properties": {"messages": False, "tools": False}})
_IDS = _list({"type": "integer", "minimum": 0, "maximum": 2**31 - 1})
_TEXT_PARTS = ("text", "refusal")


def _block(kind: Schema, needed: dict[str, Schema]) -> Schema:
    return _object({"type": kind, **needed})


_NOT_TEXT = ("image", "document", "search_result", "container_upload")
_READABLE: Schema = {
    "allOf": [ref("MessagesBlock")],
    "anyOf": [
        _block({"type": "string", "not": _is(*_NOT_TEXT)}, {"text": _TEXT}),
        _block(_is("document"), {"source": _object({"type": _is("text"), "data": _TEXT})}),
        _block(_is("document"), {"source": _object({"type": _is("content"), "content": _TEXT})}),
        _block(_is("search_result"), {"source": _TEXT, "content": _list(ref("MessagesReadable"), least=0)}),
        _block(_is("tool_reference"), {"tool_name": _TEXT}),
    ],
}
_READABLES: Schema = {"anyOf": [_TEXT, _list(ref("MessagesReadable"), least=0)]}
_RESULT = {
    "allOf": [ref("MessagesBlock")],
    **_block(_is("tool_result"), {"tool_use_id": _SOME}),
}
_RESULT["properties"]["content"] = {"anyOf": [*_READABLES["anyOf"], _NULL]}
_OWN_TYPES = ("tool_use", "thinking", "redacted_thinking")
_SAID: Schema = {
    "anyOf": [
        {"allOf": [ref("MessagesReadable")], "properties": {"type": {"not": _is(*_OWN_TYPES)}}},
        {"allOf": [ref("MessagesBlock")], **_block(_is("tool_use"), {"id": _SOME, "name": _SOME})},
        {"allOf": [ref("MessagesBlock")], **_block(_is("thinking", "redacted_thinking"), {})},
    ]
}
_ASKED: Schema = {
    "anyOf": [
        {"allOf": [ref("MessagesReadable")], "properties": {"type": {"not": _is("tool_result")}}},
        _RESULT,
    ]
}


def _turn(role: str, block: Schema) -> Schema:
    return _object({"role": _is(role), "content": {"anyOf": [_TEXT, _list(block, least=0)]}})


_MESSAGES_FIELDS: dict[str, Schema] = {
    "system": optional(*_READABLES["anyOf"]),
    "messages": _list(ref("MessagesTurn")),
}
_MESSAGES_RULES = [
    either(
        {"tool_choice": {"enum": [None]}},
        {"tool_choice": _object({"type": _is("auto", "none")})},
        {"tools": {"type": "array", "minItems": 1, "contains": _object({"name": _SOME, "input_schema": _OBJECT})}},
    ),
]

# ---- items ----------------------------------------------------------------------------------------------------------

_KNOWN_ITEMS = ("message", "function_call", "function_call_output", "reasoning", "compaction", "item_reference")
_ID = {"id": optional(_TEXT)}
_PARTS = _list(
    {
        "anyOf": [
            _object(
                {"type": _is("input_text", "output_text", "text", "summary_text", "reasoning_text"), "text": _TEXT}
            ),
            _object({"type": _is("refusal"), "refusal": _TEXT}),
        ]
    },
    least=0,
)
_THOUGHTS = optional(_list(_object({"type": _TEXT}, {"text": optional(_TEXT)}), least=0))
_ITEM: Schema = {
    "anyOf": [
        _object(
            {
                "type": _is("message"),
                "role": _is("user", "assistant", "system", "developer"),
                "content": {"anyOf": [_TEXT, _PARTS]},
            },
            _ID,
        ),
        _object({"type": _is("function_call"), "call_id": _TEXT, "name": _TEXT, "arguments": _TEXT}, _ID),
        _object({"type": _is("function_call_output"), "call_id": _TEXT, "output": {"anyOf": [_TEXT, _PARTS]}}, _ID)
        | {"description": "Its `call_id` is that of a call before it."},
        _object(
            {"type": _is("reasoning")},
            {"summary": _THOUGHTS, "content": _THOUGHTS, "encrypted_content": optional(_TEXT), **_ID},
        ),
        _object({"type": _is("compaction"), "encrypted_content": {"type": "string", "format": "compaction"}}, _ID),
        _object({"type": _is("item_reference"), "id": {"type": "string", "format": "item-id"}}),
        _object({"type": {"type": "string", "minLength": 1, "not": _is(*_KNOWN_ITEMS)}}),
    ]
}
_INPUT = optional(_TEXT, _list(ref("InputItem"), least=0))
_KNOWN_ITEM = {"properties": {"type": _is(*_KNOWN_ITEMS)}}
_BEGUN = either(
    {"input": {"anyOf": [_TEXT, {"type": "array", "contains": _KNOWN_ITEM}]}}, {"previous_response_id": _TEXT}
)
_PREVIOUS = optional({"type": "string", "format": "response-id"})

# ---- searches -------------------------------------------------------------------------------------------------------

_NUMBER: Schema = {"type": "number", "exclusiveMinimum": -1e308, "exclusiveMaximum": 1e308}
_LONG: Schema = {"type": "string", "maxLength": MAX_TEXT}
_BOOL: Schema = {"type": "boolean"}
_PAGE = optional({"type": "string", "pattern": "^(page_[0-9]{1,6})?$"})
_WEIGHED = {"anyOf": [{"properties": {name: {"exclusiveMinimum": 0}}} for name in ("embedding_weight", "text_weight")]}


def _closed(needed: dict[str, Schema]) -> Schema:
    return _object(needed) | {"additionalProperties": False}


def _filter(name: str, comparisons: list[Schema]) -> dict[str, Schema]:
    """A filter's schema by its name, and those of the filters in it, each as deep as filters may be nested there."""
    found: dict[str, Schema] = {f"{name}{MAX_DEPTH}": {"anyOf": comparisons}}
    deepest = ref(f"{name}{MAX_DEPTH}")
    for depth in range(MAX_DEPTH - 1, 0, -1):
        inner = _list(ref(f"{name}{depth + 1}"))
        found[name if depth == 1 else f"{name}{depth}"] = {
            "anyOf": [deepest, _closed({"type": _is("and", "or"), "filters": inner})]
        }
    found[name]["description"] = f"It holds at most {MAX_COMPARISONS} comparisons, all in all."
    return found


def _comparisons(key: Schema, values: list[Schema]) -> list[Schema]:
    ordered = [each for each in values if each is not _BOOL]
    found = [_closed({"type": _is("eq", "ne"), "key": key, "value": {"anyOf": values}})]
    if ordered:
        found.append(_closed({"type": _is("gt", "gte", "lt", "lte"), "key": key, "value": {"anyOf": ordered}}))
    found.append(_closed({"type": _is("in", "nin"), "key": key, "value": _list({"anyOf": values}, most=MAX_VALUES)}))
    return found


_OPEN_KEY: Schema = {"type": "string", "maxLength": MAX_TEXT}
_ATTRIBUTES: Schema = {
    "type": "object",
    "maxProperties": 16,
    "propertyNames": {"minLength": 1, "maxLength": 64},
    "additionalProperties": {"anyOf": [{"type": "string", "maxLength": 512}, _NUMBER, _BOOL]},
}

# ---- all of it ------------------------------------------------------------------------------------------------------

_KINDS: dict[str, Schema] = {"string": _LONG, "int": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}}
_KINDS |= {"float": _NUMBER, "bool": _BOOL}

FIELDS: dict[str, dict[str, Schema]] = {
    "ChatRequest": {
        **_GENERATION,
        "tools": _TOOLS,
        "tool_choice": _TOOL_CHOICE,
        "functions": optional(_list(_FUNCTION)),
        "function_call": optional(_is("none", "auto"), _NAMED) | {"description": "It names one of `functions`."},
        "modalities": absent(["text"]),
        "chat_template_kwargs": _KWARGS,
    },
    "CompletionRequest": {
        **_GENERATION,
        "prompt": {"anyOf": [_SOME, _list(_SOME), _IDS, _list(_IDS)]},
    },
    "EmbeddingsRequest": {"input": {"anyOf": [_SOME, _list(_SOME, most=2048), _IDS, _list(_IDS, most=2048)]}},
    "RerankRequest": {"raw_scores": absent(False)},
    "TokenizeRequest": {"tools": _TOOLS, "chat_template_kwargs": _KWARGS},
    "ApplyTemplateRequest": {"tools": _TOOLS, "chat_template_kwargs": _KWARGS},
    "NativeRequest": {
        "prompt": {"anyOf": [_SOME, _IDS]},
        "grammar": optional(_GRAMMAR),
        "json_schema": optional(_OBJECT),
        "n_probs": absent(0),
    },
    "InfillRequest": {"grammar": optional(_GRAMMAR), "json_schema": optional(_OBJECT), "n_probs": absent(0)},
    "MessagesRequest": _MESSAGES_FIELDS,
    "CountTokensRequest": _MESSAGES_FIELDS,
    "MessagesThinking": {"type": _is("enabled", "disabled", "adaptive", "between_tools")},
    "OllamaChatRequest": {"tools": _TOOLS, "format": optional(_is("", "json"), _OBJECT)},
    "OllamaGenerateRequest": {
        "format": optional(_is("", "json"), _OBJECT),
        "template": absent(""),
        "images": absent([]),
        "context": absent([]),
    },
    "CreateResponse": {
        "input": _INPUT,
        "previous_response_id": _PREVIOUS,
        "tools": _FLAT_TOOLS,
        "tool_choice": _FLAT_CHOICE,
        "background": absent(False),
        "conversation": absent("", {}),
        "prompt": absent({}),
        "chat_template_kwargs": _KWARGS,
    },
    "Compact": {"input": _INPUT, "previous_response_id": _PREVIOUS},
    "AskedText": {"format": _TEXT_FORMAT},
    "RetrieveRequest": {"filters": optional(ref("DeclaredFilter")), "page": _PAGE},
    "SearchStore": {"filters": optional(ref("OpenFilter")), "page": _PAGE},
    "PushDocument": {"text": {"type": "string", "pattern": "\\S"}},
    "AttachFile": {"attributes": optional(_ATTRIBUTES)},
    "ChangeFile": {"attributes": {"anyOf": [_ATTRIBUTES, _NULL]}},
    "CreateBatch": {"attributes": optional(_ATTRIBUTES)},
}
"""By the type, then the field: its schema, in place of that of the type it is decoded into."""

for _name in ("OllamaChatRequest", "OllamaGenerateRequest"):
    FIELDS[_name] |= {"options": optional(ref("OllamaOptions")), "think": optional(_BOOL, _is("low", "medium", "high"))}

RULES: dict[str, list[Schema]] = {
    "ChatRequest": [
        _STREAMS,
        either(
            {"functions": absent(), "function_call": _UNFORCED, "tool_choice": _UNFORCED},
            {"functions": absent(), "function_call": _UNFORCED, "tools": _HAS_FUNCTION},
            {"functions": {"type": "array"}, "tools": absent(), "tool_choice": _UNFORCED},
        ),
        either({"top_logprobs": absent(0)}, {"logprobs": _is(True)}),
    ],
    "CompletionRequest": [
        _STREAMS,
        either(
            {"suffix": absent("")},
            {"echo": absent(False)},
            {"logprobs": absent(), "prompt": {"anyOf": [_SOME, _list(_SOME)]}},
        ),
    ],
    "ChatMessage": [
        either(
            {"role": _is("system", "developer", "user", "assistant", "function")},
            {"role": _is("tool"), "tool_call_id": _TEXT},
        )
    ],
    "ContentPart": [either({"type": {"type": "string", "not": _is("text")}}, {"type": _is("text"), "text": _TEXT})],
    "RerankRequest": [_exactly_one("documents", "texts")],
    "TokenizeRequest": [_exactly_one("prompt", "content", "messages")],
    "NativeRequest": [either({"json_schema": absent()}, {"grammar": absent("")})],
    "InfillRequest": [either({"json_schema": absent()}, {"grammar": absent("")})],
    "MessagesTurn": [
        {"anyOf": [_turn("user", _ASKED), _turn("assistant", _SAID), _turn("system", ref("MessagesReadable"))]}
    ],
    "MessagesTool": [
        either(
            {"type": absent("custom"), "name": _SOME, "input_schema": _OBJECT},
            {"type": {"type": "string", "not": _is("custom")}},
        )
    ],
    "MessagesRequest": _MESSAGES_RULES,
    "CountTokensRequest": _MESSAGES_RULES,
    "OllamaShowRequest": [{"anyOf": [_object({name: _SOME}) for name in ("model", "name")]}],
    "Compact": [_BEGUN],
    "CreateResponse": [_BEGUN, _CHOSEN],
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
    "CreateBatch": [_exactly_one("file_ids", "files")],
}
"""By the type: what its fields have to be together."""

NAMED: dict[str, Schema] = {
    "OllamaOptions": msgspec.json.schema_components([OllamaOptions])[1]["OllamaOptions"],
    "MessagesReadable": _READABLE,
    "InputItem": _ITEM,
    **_filter("OpenFilter", _comparisons(_OPEN_KEY, [_LONG, _NUMBER, _BOOL])),
}
"""Schemas that others refer to."""


def declared_filter(attributes: dict[str, str]) -> dict[str, Schema]:
    """As NAMED: filters over collections that declare these attributes, each with its kind."""
    kinds = {**BUILT_IN, **attributes}
    found: list[Schema] = []
    for kind in dict.fromkeys(kinds.values()):
        names = _is(*(name for name, each in kinds.items() if each == kind))
        found += _comparisons(names, [_KINDS[kind]])
    return _filter("DeclaredFilter", found)


LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    "Generation": {
        "response_format": {
            "response_format": _UNBOUND,
            **{
                name: absent("") for name in ("grammar", "guided_regex", "guided_grammar", "json_schema", "guided_json")
            },
            "guided_choice": absent(),
            "structured_outputs": absent(),
        },
        "logit_bias": {"logit_bias": absent({})},
        "min_tokens": {"min_tokens": absent(0)},
        "stop_token_ids": {"stop_token_ids": absent([])},
        "return_token_ids": {"return_token_ids": absent(False)},
    },
    "ChatRequest": {
        "tool_choice": {"tool_choice": absent("none", "auto")},
        "logprobs": {"logprobs": absent(False), "top_logprobs": absent(0)},
    },
    "CompletionRequest": {
        "logprobs": {"logprobs": absent()},
        "suffix": {"suffix": absent("")},
    },
    "MessagesRequest": {"response_format": {"output_format": absent()}},
    "CountTokensRequest": {"response_format": {"output_format": absent()}},
    "OllamaChatRequest": {"response_format": {"format": absent("")}},
    "OllamaGenerateRequest": {"response_format": {"format": absent("")}, "suffix": {"suffix": absent("")}},
    "NativeRequest": {"response_format": {"json_schema": absent(), "grammar": absent("")}},
    "InfillRequest": {"response_format": {"json_schema": absent(), "grammar": absent("")}},
    "ContentPart": {"parts": {"type": _is(*_TEXT_PARTS)}},
    "OllamaMessage": {"parts": {"images": absent([])}},
}
"""By the type, then the ability: what its fields are where no model has it."""
for _name in ("ChatRequest", "CompletionRequest"):
    LACKING[_name] |= LACKING["Generation"]
del LACKING["Generation"]
