"""Where a chat template takes messages: what it would refuse or leave out goes into the message before or after.

Clients put system messages anywhere (Claude Code does after every user's turn), and a user's words right after a
tool's result. Templates of strictly alternating roles raise on both, and some show the first system message alone, or
none (Gemma). Many know nothing of tools: calls and results are written into the turns then, as the model was told to.
What one template does is tried out once; knows neither requests nor engines.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgspec

from server.errors import InvalidValue
from server.models.engine import Message, ToolCall

Render = Callable[[Sequence[Message]], str]

_MARK, _OTHER = "a0f7c3", "d51e9b"
_ID = re.compile(r"[A-Za-z0-9]{9}")
"""What every template takes as the id of a call; Mistral's raise on any other."""


def _called(*words: str, first: str = "abcdefgh1") -> list[Message]:
    """A user's turn, one call for each of `words`, and their results; the first call has the id `first`."""
    ids = [first, "abcdefgh2"]
    calls = [ToolCall(number, "f", f'{{"x": "{word}"}}') for number, word in zip(ids, words, strict=False)]
    results = [Message("tool", "b", name=call.name, tool_call_id=call.id) for call in calls]
    return [Message("user", "a"), Message("assistant", "", tool_calls=calls), *results]


_SYSTEM = [Message("system", _MARK), Message("user", "a")]
_LATE_SYSTEM = [Message("user", "a"), Message("system", _MARK), Message("assistant", "b"), Message("user", "c")]
_SAID = [Message("user", "a"), Message("assistant", "b")]


@dataclass(frozen=True)
class Placing:
    """What the template shows where it stands: a system message at the beginning (`system`) and later
    (`late_system`), calls, `several` of them in a turn, `results`, a user's words after a result (`after_tool`), and
    calls with an id of any form (`any_id`).
    """

    late_system: bool = True
    after_tool: bool = True
    system: bool = True
    calls: bool = True
    several: bool = True
    results: bool = True
    any_id: bool = True

    @classmethod
    def of(cls, render: Render) -> "Placing":
        """Renders some conversations, to see."""
        calls = _shows(render, _called(_MARK))
        before = _called(_OTHER)[:-1] if calls else _SAID
        result = Message("tool", _OTHER, name="f", tool_call_id="abcdefgh1")
        return cls(
            late_system=_shows(render, _LATE_SYSTEM),
            after_tool=_shows(render, [*before, result, Message("user", _MARK)]),
            system=_shows(render, _SYSTEM),
            calls=calls,
            several=not calls or _shows(render, _called(_OTHER, _MARK)),
            results=_shows(render, [*before, msgspec.structs.replace(result, text=_MARK)]),
            any_id=not calls or _shows(render, _called(_MARK, first="call_of-any-form")),
        )

    def __call__(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation with every message's text and call, in an order of roles that the template shows."""
        if self == _ANYTHING:
            return messages
        if not self.several:
            messages = _one_by_one(messages)
        placed: list[Message] = []
        names = {call.id: call.name for message in messages for call in message.tool_calls}
        late = False
        for message in messages:
            name = message.name or names.get(message.tool_call_id or "")
            message = self._written(message)
            system = message.role == "system" and not (self.late_system if placed else self.system)
            moved = system or (message.role == "tool" and not self.results)
            if moved:
                message = Message("user", message.text if system else _told(name, message.text))
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

    def _written(self, message: Message) -> Message:
        """The message with its calls as the template shows them: in its text, or with ids of the form it takes."""
        if message.tool_calls and not self.calls:
            text = f"{message.text}\n{as_json(message.tool_calls)}" if message.text else as_json(message.tool_calls)
            return msgspec.structs.replace(message, text=text, tool_calls=[])
        if self.any_id:
            return message
        calls = [msgspec.structs.replace(call, id=_short(call.id)) for call in message.tool_calls]
        answered = None if message.tool_call_id is None else _short(message.tool_call_id)
        return msgspec.structs.replace(message, tool_calls=calls, tool_call_id=answered)


_ANYTHING = Placing()


def as_json(calls: Sequence[ToolCall]) -> str:
    """Calls as a model without a format of its own is told to write them: an object, or a list of objects."""
    objects = [
        f'{{"name": {msgspec.json.encode(call.name).decode()}, "arguments": {call.arguments}}}' for call in calls
    ]
    return objects[0] if len(objects) == 1 else f"[{', '.join(objects)}]"


def _told(name: str | None, result: str) -> str:
    return f"Result of {name}:\n{result}" if name else f"Result:\n{result}"


def _short(number: str) -> str:
    """Always the same nine letters and digits for the same id."""
    return number if _ID.fullmatch(number) else blake2b(number.encode(), digest_size=5).hexdigest()[:9]


def _one_by_one(messages: Sequence[Message]) -> list[Message]:
    """Each turn of several calls as turns of one, each with its result behind it."""
    found: list[Message] = []
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    moved: set[str] = set()
    for message in messages:
        if message.role == "tool" and message.tool_call_id in moved:
            continue
        if len(message.tool_calls) < 2:
            found.append(message)
            continue
        for place, call in enumerate(message.tool_calls):
            text = message.text if place == 0 else ""
            found.append(msgspec.structs.replace(message, text=text, tool_calls=[call]))
            if (result := results.get(call.id)) is not None:
                found.append(result)
                moved.add(call.id)
    return found


def _shows(render: Render, messages: Sequence[Message]) -> bool:
    try:
        return _MARK in render(messages)
    except InvalidValue:
        return False
