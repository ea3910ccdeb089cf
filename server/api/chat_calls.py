"""Tool calls as the wire has them: the client's, each with an id of its own, and those that the server has run."""

from collections.abc import Iterable, Sequence
from typing import Any

import pydantic_core

from server.api.wire import FunctionCall, FunctionDelta, ServerToolCall, ServerToolDelta, ToolCall, ToolCallDelta
from server.chat import ToolBegun, ToolDone, ToolRun, fresh_id
from server.models.tool_formats import CallArguments, CallStart


def whole(pieces: Iterable[CallStart | CallArguments]) -> list[ToolCall]:
    """All calls of a finished answer. A call whose arguments broke off keeps what there is of them."""
    calls: list[ToolCall] = []
    for piece in pieces:
        match piece:
            case CallStart(name=name, id=given):
                calls.append(ToolCall(given or fresh_id(), "function", FunctionCall(name, "")))
            case CallArguments(text=text):
                calls[-1].function.arguments += text
    return calls


def deltas(pieces: Sequence[CallStart | CallArguments]) -> list[ToolCallDelta]:
    """What one step added, a delta for each call. The id, type and name stand in a call's first delta alone."""
    deltas: list[ToolCallDelta] = []
    for piece in pieces:
        match piece:
            case CallStart(index=index, name=name, id=given):
                deltas.append(ToolCallDelta(index, FunctionDelta("", name), given or fresh_id(), "function"))
            case CallArguments(index=index, text=text) if deltas and deltas[-1].index == index:
                deltas[-1].function.arguments += text
            case CallArguments(index=index, text=text):
                deltas.append(ToolCallDelta(index, FunctionDelta(text)))
    return deltas


def arguments(text: str) -> dict[str, Any]:
    """A call's arguments as an object; of those that broke off at the limit, what is whole."""
    try:
        found = pydantic_core.from_json(text, allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# ---- of the server --------------------------------------------------------------------------------------------------


def served(runs: Iterable[ToolRun]) -> list[ServerToolCall]:
    """All calls that the server has run for a finished answer, in the order in which they began."""
    done = sorted((run for run in runs if isinstance(run, ToolDone)), key=lambda run: run.index)
    return [ServerToolCall(run.id, FunctionCall(run.name, run.arguments), run.output, run.error) for run in done]


def served_delta(run: ToolRun) -> ServerToolDelta:
    """A call as it begins, or as it ends."""
    if isinstance(run, ToolBegun):
        return ServerToolDelta(run.index, run.id, "function", FunctionCall(run.name, run.arguments))
    return ServerToolDelta(run.index, output=run.output, is_error=run.error)
