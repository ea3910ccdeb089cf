"""One entry of the recipe's tools, made real: what the toolbox asks of every kind."""

from typing import Protocol

from server.tools.tool import EntryState, Tool


class Entry(Protocol):
    """Idempotent everywhere, used from one event loop."""

    async def start(self) -> None:
        """Begin what is worth having before the first call; returns at once and raises nothing."""
        ...

    async def tools(self) -> list[Tool]:
        """What it offers, started for that where it has to be. Raises ToolUnavailable with the reason."""
        ...

    def state(self) -> EntryState: ...

    async def close(self) -> None:
        """End all processes; calls in flight come back as errors."""
        ...
