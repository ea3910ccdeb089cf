"""What tool formats take and give: the functions of a request, and the pieces of an answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec


class ToolSpec(msgspec.Struct, frozen=True):
    """A function the model may call; `parameters` is a JSON Schema of an object, None where it takes nothing."""

    name: str
    parameters: dict[str, Any] | None = None
    description: str = ""


class Text(msgspec.Struct, frozen=True):
    """Plain content."""

    text: str


class CallStart(msgspec.Struct, frozen=True):
    """The answer's call number `index`, from 0, is of the function `name`; `id` where the model gave it one."""

    index: int
    name: str
    id: str | None = None


class CallArguments(msgspec.Struct, frozen=True):
    """More of the arguments of call `index`; a call's pieces together are its JSON."""

    index: int
    text: str


Piece = Text | CallStart | CallArguments


class ToolParser(Protocol):
    """Reads one answer. Pieces come as soon as they are certain; a marker never shows as content.

    What turns out to be no call comes as Text, markers and all. Once a call has started it stays one: should its JSON
    break later, what follows the fault is Text. Whitespace next to a call is layout and dropped.
    """

    def feed(self, text: str) -> list[Piece]: ...

    def finish(self) -> list[Piece]:
        """The answer has ended: what was held back."""
        ...


MOST_CALLS = 16
"""Calls of one turn that a grammar allows: a small model that may call again and again does, up to its context."""


class ToolFormat(Protocol):
    """How one family of models writes calls. `markers` are the texts the format needs to see in an answer.

    Where such a text is a special token of the vocabulary, decoding must not drop it.
    """

    @property
    def name(self) -> str: ...

    @property
    def markers(self) -> tuple[str, ...]: ...

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ToolParser: ...

    def grammar(self, tools: Sequence[ToolSpec], *, many: bool, special: Mapping[str, int] | None = None) -> str:
        """A grammar (llguidance's Lark dialect) of one call of these functions, or with `many` of one to MOST_CALLS.

        `special` maps the texts that are single tokens of the vocabulary (`added_tokens` of tokenizer.json) to their
        ids. Raises ValueError without tools.
        """
        ...
