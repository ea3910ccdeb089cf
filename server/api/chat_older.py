"""What other and older chat wires ask, in the words of today's: `functions`, and schemas by other names."""

from typing import Any

import msgspec

from server.api.wire import ChatRequest
from server.errors import InvalidValue, UnsupportedParameter
from server.models.tool_formats.lark import quoted

CALL_ID = "function1"
"""The older wire's calls have no id, and chat templates want one: nine letters and digits."""

_SCHEMAS = ("json_schema", "guided_json")
_PATTERNS = ("guided_regex",)
_WORDS = ("guided_choice",)
_GRAMMARS = ("grammar", "guided_grammar")
FORMATS = (*_SCHEMAS, *_PATTERNS, *_WORDS, *_GRAMMARS, "structured_outputs")
"""What llama.cpp and vLLM call an answer's format. To pass one over would be to promise what does not come."""


def modern(asked: ChatRequest) -> ChatRequest:
    """The request with `tools` and `response_format` in place of all other names. Raises where it has both."""
    if asked.functions is None and isinstance(asked.function_call, dict):
        raise InvalidValue("`function_call` names a function, and `functions` has none.", param="function_call")
    if asked.functions is None and all(getattr(asked, name) is None for name in FORMATS):
        return asked
    return msgspec.structs.replace(asked, **_tools(asked), **_format(asked))


def is_older(asked: ChatRequest) -> bool:
    """Whether the client expects its call as `function_call`."""
    return asked.functions is not None


def _tools(asked: ChatRequest) -> dict[str, Any]:
    if asked.functions is None:
        return {}
    if asked.tools is not None:
        raise InvalidValue("A request has `tools` or `functions`, not both.", param="functions")
    choice = asked.function_call
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    elif choice not in (None, "auto", "none"):
        raise InvalidValue('`function_call` is "none", "auto" or {"name": ...}.', param="function_call")
    tools = [{"type": "function", "function": function} for function in asked.functions]
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False if tools else None}


def _format(asked: ChatRequest) -> dict[str, Any]:
    given = [name for name in FORMATS if getattr(asked, name) is not None]
    if not given:
        return {}
    if len(given) > 1 or asked.response_format is not None:
        other = given[1] if len(given) > 1 else "response_format"
        raise InvalidValue(f"`{given[0]}` and `{other}` both say what the answer is to be.", param=given[0])
    [name] = given
    value = getattr(asked, name)
    if name == "structured_outputs":
        name, value = _of_vllm(value)
    return {"response_format": _wanted(name, value, given[0])}


def _of_vllm(value: object) -> tuple[str, Any]:
    kinds = {"json": "json_schema", "regex": "guided_regex", "choice": "guided_choice", "grammar": "grammar"}
    match value:
        case {**one} if (told := [kind for kind in kinds if one.get(kind) is not None]) and len(told) == 1:
            return kinds[told[0]], one[told[0]]
        case _:
            raise InvalidValue(
                "`structured_outputs` is an object with one of json, regex, choice and grammar.",
                param="structured_outputs",
            )


def _wanted(name: str, value: Any, param: str) -> dict[str, Any]:
    if name in _SCHEMAS and isinstance(value, str):
        value = _read(value, param)
    match value:
        case dict() if name in _SCHEMAS:
            return {"type": "json_schema", "json_schema": {"name": "answer", "schema": value}}
        case str() if name in _PATTERNS:
            return {"type": "regex", "pattern": value}
        case [*words] if name in _WORDS and words and all(isinstance(word, str) and word for word in words):
            return {"type": "lark", "grammar": f"start: {' | '.join(quoted(word) for word in words)}"}
        case str() if name in _GRAMMARS:
            raise UnsupportedParameter(
                "GBNF is not read here. Send a schema, a regular expression, or a Lark grammar: "
                '`response_format` {"type": "lark", "grammar": ...}.',
                param=param,
            )
        case _:
            raise InvalidValue(f"`{param}` has the wrong type.", param=param)


def _read(text: str, param: str) -> object:
    """A schema that was sent as text."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InvalidValue(f"`{param}` is no JSON: {error}.", param=param) from error
