"""Chat completions, completions, and their tokens: what a body has to be beyond the types of its fields."""

from server.api.precise.asking import (
    FUNCTION,
    GENERATION,
    HAS_FUNCTION,
    HAS_NAME,
    KWARGS,
    LACKING_GENERATION,
    TOOL_CHOICE,
    TOOLS,
    UNFORCED,
    UNSEARCHED_TOOLS,
)
from server.api.precise.forms import IDS, SOME, TEXT, Schema, absent, array, either, enum, exactly_one, optional

_STREAMS = either({"stream_options": absent()}, {"stream": enum(True)})

FIELDS: dict[str, dict[str, Schema]] = {
    "ChatRequest": {
        **GENERATION,
        "tools": TOOLS,
        "tool_choice": TOOL_CHOICE,
        "functions": optional(array(FUNCTION)),
        "function_call": optional(enum("none", "auto"), HAS_NAME) | {"description": "It names one of `functions`."},
        "modalities": absent(["text"]),
        "chat_template_kwargs": KWARGS,
    },
    "CompletionRequest": {
        **GENERATION,
        "prompt": {"anyOf": [SOME, array(SOME), IDS, array(IDS)]},
    },
    "TokenizeRequest": {"tools": UNSEARCHED_TOOLS, "chat_template_kwargs": KWARGS},
    "ApplyTemplateRequest": {"tools": UNSEARCHED_TOOLS, "chat_template_kwargs": KWARGS},
}

RULES: dict[str, list[Schema]] = {
    "ChatRequest": [
        _STREAMS,
        either(
            {"functions": absent(), "function_call": UNFORCED, "tool_choice": UNFORCED},
            {"functions": absent(), "function_call": UNFORCED, "tools": HAS_FUNCTION},
            {"functions": {"type": "array"}, "tools": absent(), "tool_choice": UNFORCED},
        ),
        either({"top_logprobs": absent(0)}, {"logprobs": enum(True)}),
    ],
    "CompletionRequest": [
        _STREAMS,
        either(
            {"suffix": absent("")},
            {"echo": absent(False)},
            {"logprobs": absent(), "prompt": {"anyOf": [SOME, array(SOME)]}},
        ),
    ],
    "ChatMessage": [
        either(
            {"role": enum("system", "developer", "user", "assistant", "function")},
            {"role": enum("tool"), "tool_call_id": TEXT},
        )
    ],
    "ContentPart": [either({"type": {"type": "string", "not": enum("text")}}, {"type": enum("text"), "text": TEXT})],
    "TokenizeRequest": [exactly_one("prompt", "content", "messages")],
}

LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    "ChatRequest": {
        **LACKING_GENERATION,
        "tool_choice": {"tool_choice": absent("none", "auto")},
        "logprobs": {"logprobs": absent(False), "top_logprobs": absent(0)},
    },
    "CompletionRequest": {
        **LACKING_GENERATION,
        "logprobs": {"logprobs": absent()},
        "suffix": {"suffix": absent("")},
    },
    "ContentPart": {"parts": {"type": enum("text", "refusal")}},
}
