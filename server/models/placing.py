"""Where a chat template takes messages: what it would refuse or leave out goes into the message before or after.

Clients put system messages anywhere (Claude Code does after every user's turn), and a user's words right after a
tool's result. Templates of strictly alternating roles raise on both, and some show the first system message alone. What
one template does is tried out once; knows neither requests nor engines.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from server.errors import InvalidValue
from server.models.engine import Message, ToolCall

Render = Callable[[Sequence[Message]], str]

_MARK = "a0f7c3"
_CALL = ToolCall("abcdefgh1", "f", "{}")
_LATE_SYSTEM = [Message("user", "a"), Message("system", _MARK), Message("assistant", "b"), Message("user", "c")]
_AFTER_TOOL = [
    Message("user", "a"),
    Message("assistant", "", tool_calls=[_CALL]),
    Message("tool", "b", name=_CALL.name, tool_call_id=_CALL.id),
    Message("user", _MARK),
]


@dataclass(frozen=True)
class Placing:
    """`late_system` and `after_tool` say that the template shows such messages where they stand."""

    late_system: bool
    after_tool: bool

    @classmethod
    def of(cls, render: Render) -> "Placing":
        """Renders two conversations, to see."""
        return cls(_shows(render, _LATE_SYSTEM), _shows(render, _AFTER_TOOL))

    def __call__(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with every message's text, in an order of roles that the template shows."""
        if self.late_system and self.after_tool:
            return messages
        placed: list[Message] = []
        late = False
        for message in messages:
            moved = bool(placed) and message.role == "system" and not self.late_system
            if moved:
                message = Message("user", message.text)
            before = placed[-1].role if placed else ""
            joins = message.role == "user" and (
                (before == "user" and (moved or late)) or (before == "tool" and not self.after_tool)
            )
            if joins:
                placed[-1] = msgspec.structs.replace(placed[-1], text=f"{placed[-1].text}\n\n{message.text}")
            else:
                placed.append(message)
            late = moved
        return placed


def _shows(render: Render, messages: Sequence[Message]) -> bool:
    try:
        return _MARK in render(messages)
    except InvalidValue:
        return False
