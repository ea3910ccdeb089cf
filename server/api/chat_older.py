"""OpenAI's older chat wire, in the words of today's: `functions` and `function_call` are tools with one call."""

from typing import Any

import msgspec

from server.api.wire import ChatRequest
from server.errors import InvalidValue

CALL_ID = "function1"
"""The older wire's calls have no id, and chat templates want one: nine letters and digits."""


def modern(asked: ChatRequest) -> ChatRequest:
    """The request with `tools` in place of `functions`. Raises InvalidValue where it has both."""
    if asked.functions is not None:
        return msgspec.structs.replace(asked, **_tools(asked, asked.functions))
    if isinstance(asked.function_call, dict):
        raise InvalidValue("`function_call` names a function, and `functions` has none.", param="function_call")
    _check(asked.function_call)
    return asked


def _check(choice: str | dict[str, Any] | None) -> None:
    if choice not in (None, "auto", "none") and not isinstance(choice, dict):
        raise InvalidValue('`function_call` is "none", "auto" or {"name": ...}.', param="function_call")


def is_older(asked: ChatRequest) -> bool:
    """Whether the client expects its call as `function_call`."""
    return asked.functions is not None


def _tools(asked: ChatRequest, functions: list[dict[str, Any]]) -> dict[str, Any]:
    if asked.tools is not None:
        raise InvalidValue("A request has `tools` or `functions`, not both.", param="functions")
    choice = asked.function_call
    _check(choice)
    if isinstance(choice, dict):
        choice = {"type": "function", "function": choice}
    tools = [{"type": "function", "function": function} for function in functions]
    return {"tools": tools, "tool_choice": choice, "parallel_tool_calls": False if tools else None}
