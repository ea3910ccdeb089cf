"""A call that the server runs within a turn, as the client is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.knowledge import Hit


@dataclass(frozen=True)
class ToolBegun:
    """The model called a tool of the server. `index` counts such calls of a turn, from 0; `arguments` is JSON text."""

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolDone:
    """What call `index` brought, as the tool said it; with `error` the text says what went wrong.

    `hits` are what a search found, None for every other tool.
    """

    index: int
    id: str
    name: str
    arguments: str
    output: str
    error: bool = False
    hits: Sequence[Hit] | None = None


ToolRun = ToolBegun | ToolDone
