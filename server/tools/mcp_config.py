"""What the gateway and the process beside an MCP server tell each other; here so that the gateway imports no client."""

from typing import Any

import msgspec

BEGUN = b""
"""The first answer to a call: the server is asked now. One that is lost before this is for the next session."""


class McpConfig(msgspec.Struct, frozen=True):
    """What the process is told: either `command` and what it runs in, or `url`. `memory` 0 is no limit."""

    output: int
    command: list[str] = []
    folder: str = "."
    environment: dict[str, str] = {}
    memory: int = 0
    url: str = ""
    headers: dict[str, str] = {}


class McpAsked(msgspec.Struct, frozen=True):
    """One call; without `tool` the server's tools are watched, and each list comes as soon as it changes."""

    tool: str | None = None
    arguments: dict[str, Any] = {}


class McpOffered(msgspec.Struct, frozen=True):
    """One tool as the server tells of it."""

    name: str
    description: str
    parameters: dict[str, Any]
