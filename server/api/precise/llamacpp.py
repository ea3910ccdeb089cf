"""llama.cpp's own completions and infills: what a body has to be beyond the types of its fields."""

from server.api.precise.asking import GRAMMAR
from server.api.precise.forms import IDS, OBJECT, SOME, Schema, absent, either, optional

FIELDS: dict[str, dict[str, Schema]] = {
    "NativeRequest": {
        "prompt": {"anyOf": [SOME, IDS]},
        "grammar": optional(GRAMMAR),
        "json_schema": optional(OBJECT),
        "n_probs": absent(0),
    },
    "InfillRequest": {"grammar": optional(GRAMMAR), "json_schema": optional(OBJECT), "n_probs": absent(0)},
}

RULES: dict[str, list[Schema]] = {
    "NativeRequest": [either({"json_schema": absent()}, {"grammar": absent("")})],
    "InfillRequest": [either({"json_schema": absent()}, {"grammar": absent("")})],
}

LACKING: dict[str, dict[str, dict[str, Schema]]] = {
    "NativeRequest": {"response_format": {"json_schema": absent(), "grammar": absent("")}},
    "InfillRequest": {"response_format": {"json_schema": absent(), "grammar": absent("")}},
}
