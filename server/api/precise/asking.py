"""What several wires ask of a model in the same words: tools, the form of an answer, the choice of its tokens."""

from server.api.precise.forms import NULL, OBJECT, SOME, TEXT, Schema, absent, array, enum, object_with, optional, ref

FUNCTION = object_with({"name": SOME}, {"parameters": optional(OBJECT)})
HAS_NAME = object_with({"name": TEXT})
FOREIGN: Schema = {"not": {"enum": ["function", "file_search"]}}
"""The type of a tool that is passed over, as clients offer those to every server."""

HALF: Schema = {"type": "number", "minimum": 0, "maximum": 1}
FILE_SEARCH: Schema = {"description": "At most one, and none beside `retrieval`."} | object_with(
    {"type": enum("file_search"), "vector_store_ids": array(SOME)},
    {
        "max_num_results": optional({"type": "integer", "minimum": 1, "maximum": 50}),
        "filters": optional(ref("DeclaredFilter")),
        "ranking_options": optional(
            object_with(
                {},
                {
                    "ranker": optional(TEXT),
                    "score_threshold": optional(HALF),
                    "hybrid_search": optional(ref("HybridWeights")),
                },
            )
        ),
    },
)

_A_TOOL = object_with({"type": enum("function"), "function": FUNCTION})
TOOLS = optional(array({"anyOf": [_A_TOOL, FILE_SEARCH, {"type": "object", "properties": {"type": FOREIGN}}]}, least=0))
UNSEARCHED_TOOLS = optional(
    array({"anyOf": [_A_TOOL, {"type": "object", "properties": {"type": {"not": enum("function")}}}]}, least=0)
)
"""Tools of a request with which nothing is searched, so that a `file_search` is passed over as well."""
CHOICES = enum("none", "auto", "required")
MODE = enum("auto", "required")
_A_FUNCTION = object_with({"type": enum("function"), "function": HAS_NAME})
TOOL_CHOICE = optional(
    CHOICES,
    _A_FUNCTION,
    object_with(
        {"type": enum("allowed_tools"), "allowed_tools": object_with({"mode": MODE, "tools": array(_A_FUNCTION)})}
    ),
) | {"description": "The functions it names are in `tools`."}
HAS_FUNCTION: Schema = {"type": "array", "contains": object_with({"type": enum("function")})}
UNFORCED = absent("none", "auto")

_JSON_TEXT: Schema = {"type": "string", "format": "json-schema", "contentMediaType": "application/schema+json"}
REGEX: Schema = {"type": "string", "format": "regex"}
GRAMMAR: Schema = {"type": "string", "format": "grammar", "description": "A grammar, in GBNF or in Lark."}
_WORDS = array(SOME)
PLAIN = object_with({"type": enum("text")})
_UNBOUND: Schema = {"anyOf": [PLAIN, NULL], "default": None}
SCHEMA: Schema = {"anyOf": [OBJECT, _JSON_TEXT]}
BARE = {"not": {"anyOf": [{"required": ["schema"]}, {"required": ["value"]}]}}

_RESPONSE_FORMAT = optional(
    PLAIN,
    object_with({"type": enum("json_object")}) | BARE,
    object_with({"type": enum("json_object", "json", "json_schema"), "schema": SCHEMA})
    | {"not": {"required": ["json_schema"]}},
    object_with({"type": enum("json_schema"), "json_schema": object_with({"schema": SCHEMA})}),
    object_with({"type": enum("regex"), "pattern": REGEX}),
    object_with({"type": enum("lark", "grammar"), "grammar": GRAMMAR}),
)
_KINDS_OF_FORMAT = {"json": SCHEMA, "regex": REGEX, "choice": _WORDS, "grammar": GRAMMAR, "json_object": enum(True)}
_STRUCTURED = optional(
    *(
        object_with({name: schema}, {each: absent(False) for each in _KINDS_OF_FORMAT if each != name})
        for name, schema in _KINDS_OF_FORMAT.items()
    )
)
GENERATION: dict[str, Schema] = {
    "response_format": _RESPONSE_FORMAT,
    "json_schema": optional(SCHEMA),
    "guided_json": optional(SCHEMA),
    "guided_regex": optional(REGEX),
    "guided_choice": optional(_WORDS),
    "guided_grammar": optional(GRAMMAR),
    "grammar": optional(GRAMMAR),
    "structured_outputs": _STRUCTURED,
    "logit_bias": optional(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,9}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        }
    ),
}

KWARGS = optional({"type": "object", "properties": {"messages": False, "tools": False}})
LACKING_GENERATION: dict[str, dict[str, Schema]] = {
    "response_format": {
        "response_format": _UNBOUND,
        **{name: absent("") for name in ("grammar", "guided_regex", "guided_grammar", "json_schema", "guided_json")},
        "guided_choice": absent(),
        "structured_outputs": absent(),
    },
    "logit_bias": {"logit_bias": absent({})},
    "min_tokens": {"min_tokens": absent(0)},
    "stop_token_ids": {"stop_token_ids": absent([])},
    "return_token_ids": {"return_token_ids": absent(False)},
    "adapter": {"adapter": absent()},
}
"""By the ability: what the fields of GENERATION are where no model has it."""
