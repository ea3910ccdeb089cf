"""Anthropic's Messages: what a body has to be beyond the types of its fields."""

from server.api.precise.forms import (
    NULL,
    OBJECT,
    SOME,
    TEXT,
    Schema,
    absent,
    array,
    either,
    enum,
    object_with,
    optional,
    ref,
)


def _block(kind: Schema, needed: dict[str, Schema]) -> Schema:
    return object_with({"type": kind, **needed})


_NOT_TEXT = ("image", "document", "search_result", "container_upload")
_READABLE: Schema = {
    "allOf": [ref("MessagesBlock")],
    "anyOf": [
        _block({"type": "string", "not": enum(*_NOT_TEXT)}, {"text": TEXT}),
        _block(enum("document"), {"source": object_with({"type": enum("text"), "data": TEXT})}),
        _block(enum("document"), {"source": object_with({"type": enum("content"), "content": TEXT})}),
        _block(enum("search_result"), {"source": TEXT, "content": array(ref("MessagesReadable"), least=0)}),
        _block(enum("tool_reference"), {"tool_name": TEXT}),
    ],
}
_READABLES: Schema = {"anyOf": [TEXT, array(ref("MessagesReadable"), least=0)]}


def _result(kind: str) -> Schema:
    content = {"anyOf": [*_READABLES["anyOf"], NULL]}
    return {
        "allOf": [ref("MessagesBlock")],
        **object_with({"type": enum(kind), "tool_use_id": SOME}, {"content": content}),
    }


_OWN_TYPES = ("tool_use", "thinking", "redacted_thinking", "mcp_tool_use", "mcp_tool_result")
_SAID: Schema = {
    "anyOf": [
        {"allOf": [ref("MessagesReadable")], "properties": {"type": {"not": enum(*_OWN_TYPES)}}},
        {"allOf": [ref("MessagesBlock")], **_block(enum("tool_use", "mcp_tool_use"), {"id": SOME, "name": SOME})},
        _result("mcp_tool_result"),
        {"allOf": [ref("MessagesBlock")], **_block(enum("thinking", "redacted_thinking"), {})},
    ]
}
_ASKED: Schema = {
    "anyOf": [
        {"allOf": [ref("MessagesReadable")], "properties": {"type": {"not": enum("tool_result")}}},
        ref("MessagesPicture"),
        _result("tool_result"),
    ]
}


def _turn(role: str, block: Schema) -> Schema:
    return object_with({"role": enum(role), "content": {"anyOf": [TEXT, array(block, least=0)]}})


_MESSAGES_FIELDS: dict[str, Schema] = {
    "system": optional(*_READABLES["anyOf"]),
    "messages": array(ref("MessagesTurn")),
}
_MESSAGES_RULES = [
    either(
        {"tool_choice": {"enum": [None]}},
        {"tool_choice": object_with({"type": enum("auto", "none")})},
        {"tools": {"type": "array", "minItems": 1, "contains": object_with({"name": SOME, "input_schema": OBJECT})}},
    ),
]

FIELDS: dict[str, dict[str, Schema]] = {
    "MessagesRequest": _MESSAGES_FIELDS | {"thread": absent(), "compaction": absent()},
    "CountTokensRequest": _MESSAGES_FIELDS,
    "MessagesThinking": {"type": enum("enabled", "disabled", "adaptive", "between_tools")},
}

RULES: dict[str, list[Schema]] = {
    "MessagesRequest": _MESSAGES_RULES,
    "CountTokensRequest": _MESSAGES_RULES,
    "MessagesTurn": [
        {"anyOf": [_turn("user", _ASKED), _turn("assistant", _SAID), _turn("system", ref("MessagesReadable"))]}
    ],
    "MessagesTool": [
        either(
            {"type": absent("custom"), "name": SOME, "input_schema": OBJECT},
            {"type": {"type": "string", "not": enum("custom")}},
        )
    ],
}

NAMED: dict[str, Schema] = {
    "MessagesReadable": _READABLE,
}

LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    "MessagesRequest": {"response_format": {"output_format": absent()}},
    "CountTokensRequest": {"response_format": {"output_format": absent()}},
}
