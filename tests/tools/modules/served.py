"""An MCP server as its authors write one, with a few bad habits. Its argument is a port, for streamable HTTP."""

import asyncio
import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("served")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool(name="tell.pid")
def tell_pid() -> str:
    """Tell the number of this process."""
    return str(os.getpid())


@server.tool()
async def wait(begun: str, cancelled: str) -> str:
    """Wait for ever, and leave a note where that is cancelled."""
    Path(begun).touch()  # noqa: ASYNC240
    try:
        await asyncio.sleep(3600)
    finally:
        Path(cancelled).touch()  # noqa: ASYNC240
    return ""


@server.tool()
def forbidden() -> str:
    """Be there, and not be allowed."""
    return ""


@server.tool()
def noise() -> str:
    """Write to the standard output what is no message."""
    os.write(1, b"\xff\xfe not a message\n{}\n")
    print("to standard error", file=sys.stderr)
    return "still here"


@server.tool()
def environment() -> str:
    """Tell the names of the environment."""
    return " ".join(sorted(os.environ))


@server.tool()
def leave() -> str:
    """End the server."""
    os._exit(3)


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("it did not work")


def grown() -> str:
    """Be there only later."""
    return "grown"


@server.tool()
async def grow(context: Context) -> str:
    """Offer one tool more, and tell everybody so."""
    server.add_tool(grown)
    await context.session.send_tool_list_changed()
    await context.notify_tools_changed()
    return "more"


if __name__ == "__main__":
    print("this is no message either", flush=True)
    if len(sys.argv) > 1:
        server.run(transport="streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run()
