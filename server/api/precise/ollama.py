"""Ollama's wire: what a body has to be beyond the types of its fields."""

import msgspec

from server.api.ollama.wire import OllamaOptions
from server.api.precise.asking import TOOLS, UNSEARCHED_TOOLS
from server.api.precise.forms import BOOL, OBJECT, SOME, Schema, absent, enum, object_with, optional, ref

_SETTINGS: dict[str, Schema] = {
    "options": optional(ref("OllamaOptions")),
    "think": optional(BOOL, enum("low", "medium", "high")),
}

FIELDS: dict[str, dict[str, Schema]] = {
    "OllamaChatRequest": {**_SETTINGS, "tools": UNSEARCHED_TOOLS, "format": optional(enum("", "json"), OBJECT)},
    "OllamaGenerateRequest": {
        **_SETTINGS,
        "format": optional(enum("", "json"), OBJECT),
        "template": absent(""),
        "context": absent([]),
    },
}

RULES: dict[str, list[Schema]] = {
    "OllamaChatRequest": [{"anyOf": [{"properties": {"messages": {"maxItems": 0}}}, {"properties": {"tools": TOOLS}}]}],
    "OllamaShowRequest": [{"anyOf": [object_with({name: SOME}) for name in ("model", "name")]}],
}

NAMED: dict[str, Schema] = {
    "OllamaOptions": msgspec.json.schema_components([OllamaOptions])[1]["OllamaOptions"],
}

LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    "OllamaChatRequest": {"response_format": {"format": absent("")}},
    "OllamaGenerateRequest": {
        "response_format": {"format": absent("")},
        "suffix": {"suffix": absent("")},
        "parts": {"images": absent([])},
    },
    "OllamaMessage": {"parts": {"images": absent([])}},
}
