"""Tool calls as the wire has them, each with an id of its own."""

from collections.abc import Iterable, Sequence
from secrets import choice
from string import ascii_letters, digits

from server.api.wire import FunctionCall, FunctionDelta, ToolCall, ToolCallDelta
from server.models.tool_formats import CallArguments, CallStart

_ALPHABET = ascii_letters + digits
_LENGTH = 9
"""Mistral's chat templates take ids of nine letters and digits and nothing else, so every model gets such."""


def whole(pieces: Iterable[CallStart | CallArguments]) -> list[ToolCall]:
    """All calls of a finished answer. A call whose arguments broke off keeps what there is of them."""
    calls: list[ToolCall] = []
    for piece in pieces:
        match piece:
            case CallStart(name=name):
                calls.append(ToolCall(_fresh(), "function", FunctionCall(name, "")))
            case CallArguments(text=text):
                calls[-1].function.arguments += text
    return calls


def deltas(pieces: Sequence[CallStart | CallArguments]) -> list[ToolCallDelta]:
    """What one step added. The id, type and name stand in a call's first delta alone."""
    deltas = []
    for piece in pieces:
        match piece:
            case CallStart(index=index, name=name):
                deltas.append(ToolCallDelta(index, FunctionDelta("", name), _fresh(), "function"))
            case CallArguments(index=index, text=text):
                deltas.append(ToolCallDelta(index, FunctionDelta(text)))
    return deltas


def _fresh() -> str:
    return "".join(choice(_ALPHABET) for _ in range(_LENGTH))
