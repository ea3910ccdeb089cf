"""A tool as a turn sees it: what a model is told of it, how it is called, what comes back. Knows no kind of tool."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from config.tool import Kind
from server.tools.result import Result

State = Literal["stopped", "starting", "ready", "backoff", "failed", "stopping"]
"""As of a worker; `stopped` is also what has not been used yet."""


class Call(Protocol):
    """Runs one call of arguments that fit the schema. Never raises for the tool's own fault; may be cancelled."""

    async def __call__(self, arguments: Mapping[str, Any], /) -> Result: ...


@dataclass(frozen=True)
class Tool:
    """One function that a model may call. `name` fits OpenAI's rule for names: letters, digits, _ and -, at most 64."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    """A JSON Schema of type object."""
    entry: str
    """The recipe's entry that it comes from; an MCP server is one entry with many tools."""
    kind: Kind
    run: Call


@dataclass(frozen=True)
class EntryState:
    """How one entry of the recipe is; `reason` says why where it has failed or is to be tried again."""

    entry: str
    kind: Kind
    state: State
    reason: str | None = None
    tools: tuple[str, ...] = ()
    """Names of what it offers, as far as that is known."""
