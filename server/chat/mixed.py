"""What the server ran in turns that ended with the client's own calls, until the client sends what those brought.

A client sends back the messages of its wire, which have no place for calls of the server. So that the model reads what
happened, they are put where they were.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from server.models.caller import CALLER
from server.models.engine import Message

_MOST = 1000
_MOST_CHARACTERS = 16 * 2**20


class Mixed:
    """The last such turns, by the holder of the key and the ids of the client's calls; in memory, so that a restart
    forgets them, and then the conversation goes on without what the server's calls brought."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], list[Message]] = OrderedDict()
        self._characters = 0

    def keep(self, calls: Sequence[str], said: list[Message]) -> None:
        """`said` is all that the turn added, last the assistant's message with every call and the server's results."""
        key = (CALLER.get().name, calls[0])
        self._characters -= _size(self._kept.pop(key, ()))
        self._kept[key] = said
        self._characters += _size(said)
        while len(self._kept) > _MOST or (self._characters > _MOST_CHARACTERS and len(self._kept) > 1):
            _, gone = self._kept.popitem(last=False)
            self._characters -= _size(gone)

    def restored(self, messages: Sequence[Message]) -> list[Message] | Sequence[Message]:
        """The conversation with the server's calls and their results where they belong."""
        if not self._kept or not any(message.tool_calls for message in messages):
            return messages
        whole: list[Message] = []
        for message in messages:
            whole += self._of(message) or [message]
        return whole

    def _of(self, message: Message) -> list[Message] | None:
        if message.role != "assistant" or not message.tool_calls:
            return None
        said = self._kept.get((CALLER.get().name, message.tool_calls[0].id))
        if said is None:
            return None
        own = {call.id for call in message.tool_calls}
        last = max(place for place, each in enumerate(said) if each.role == "assistant")
        if not own < {call.id for call in said[last].tool_calls}:
            return None  # the client has brought them along itself
        # What earlier rounds said stands in the client's message already, as one text.
        before = [msgspec.structs.replace(each, text="") if each.tool_calls else each for each in said[:last]]
        return [*before, msgspec.structs.replace(message, tool_calls=said[last].tool_calls), *said[last + 1 :]]


def _size(said: Sequence[Message]) -> int:
    return sum(len(each.text) + sum(len(call.arguments) for call in each.tool_calls) for each in said)


MIXED = Mixed()
