"""The Responses API: what a body has to be beyond the types of its fields."""

from server.api.precise.asking import (
    BARE,
    CHOICES,
    FILE_SEARCH,
    FOREIGN,
    GRAMMAR,
    HAS_FUNCTION,
    KWARGS,
    MODE,
    PLAIN,
    REGEX,
    SCHEMA,
    UNFORCED,
)
from server.api.precise.forms import OBJECT, SOME, TEXT, Schema, absent, array, either, enum, object_with, optional, ref

_FLAT_TOOLS = optional(
    array(
        {
            "anyOf": [
                object_with({"type": enum("function"), "name": SOME}, {"parameters": optional(OBJECT)}),
                FILE_SEARCH,
                object_with({"type": {"type": "string", **FOREIGN}}),
            ]
        },
        least=0,
    )
)
_FLAT_FUNCTION = object_with({"type": enum("function"), "name": TEXT})
_FLAT_CHOICE = optional(
    CHOICES,
    _FLAT_FUNCTION,
    object_with({"type": enum("allowed_tools"), "tools": array(_FLAT_FUNCTION)}, {"mode": optional(MODE)}),
) | {"description": "The functions it names are in `tools`."}

_CHOSEN = either({"tool_choice": UNFORCED}, {"tools": HAS_FUNCTION})
"""A choice that asks for a call needs a function in `tools`."""

_TEXT_FORMAT = optional(
    PLAIN,
    object_with({"type": enum("json_object")}) | BARE,
    object_with({"type": enum("json_schema"), "schema": SCHEMA}),
    object_with({"type": enum("regex"), "pattern": REGEX}),
    object_with({"type": enum("lark", "grammar"), "grammar": GRAMMAR}),
)

_KNOWN_ITEMS = (
    *("message", "function_call", "function_call_output", "reasoning", "compaction", "item_reference"),
    *("mcp_call", "file_search_call"),
)
_ID = {"id": optional(TEXT)}
_PARTS = array(
    {
        "anyOf": [
            object_with(
                {"type": enum("input_text", "output_text", "text", "summary_text", "reasoning_text"), "text": TEXT}
            ),
            object_with({"type": enum("refusal"), "refusal": TEXT}),
            ref("InputPicture"),
        ]
    },
    least=0,
)
_THOUGHTS = optional(array(object_with({"type": TEXT}, {"text": optional(TEXT)}), least=0))
_ITEM: Schema = {
    "anyOf": [
        object_with(
            {
                "type": enum("message"),
                "role": enum("user", "assistant", "system", "developer"),
                "content": {"anyOf": [TEXT, _PARTS]},
            },
            _ID,
        ),
        object_with({"type": enum("function_call"), "call_id": TEXT, "name": TEXT, "arguments": TEXT}, _ID),
        object_with({"type": enum("function_call_output"), "call_id": TEXT, "output": {"anyOf": [TEXT, _PARTS]}}, _ID)
        | {"description": "Its `call_id` is that of a call before it."},
        object_with(
            {"type": enum("reasoning")},
            {"summary": _THOUGHTS, "content": _THOUGHTS, "encrypted_content": optional(TEXT), **_ID},
        ),
        object_with(
            {"type": enum("mcp_call"), "name": TEXT, "arguments": TEXT},
            {"output": optional(TEXT), "error": optional(TEXT, OBJECT), **_ID},
        ),
        object_with({"type": enum("file_search_call")}, _ID),
        object_with({"type": enum("compaction"), "encrypted_content": {"type": "string", "format": "compaction"}}, _ID),
        object_with({"type": enum("item_reference"), "id": {"type": "string", "format": "item-id"}}),
        object_with({"type": {"type": "string", "minLength": 1, "not": enum(*_KNOWN_ITEMS)}}),
    ]
}
_INPUT = optional(TEXT, array(ref("InputItem"), least=0))
_KNOWN_ITEM = {"properties": {"type": enum(*_KNOWN_ITEMS)}}
_BEGUN = either(
    {"input": {"anyOf": [TEXT, {"type": "array", "contains": _KNOWN_ITEM}]}}, {"previous_response_id": TEXT}
)
_PREVIOUS = optional({"type": "string", "format": "response-id"})

FIELDS: dict[str, dict[str, Schema]] = {
    "CreateResponse": {
        "input": _INPUT,
        "previous_response_id": _PREVIOUS,
        "tools": _FLAT_TOOLS,
        "tool_choice": _FLAT_CHOICE,
        "background": absent(False),
        "conversation": absent("", {}),
        "prompt": absent({}),
        "chat_template_kwargs": KWARGS,
    },
    "Compact": {"input": _INPUT, "previous_response_id": _PREVIOUS},
    "AskedText": {"format": _TEXT_FORMAT},
}

RULES: dict[str, list[Schema]] = {
    "CreateResponse": [_BEGUN, _CHOSEN],
    "Compact": [_BEGUN],
}

NAMED: dict[str, Schema] = {
    "InputItem": _ITEM,
}
