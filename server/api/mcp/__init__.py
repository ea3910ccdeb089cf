"""Hearth as a server of the Model Context Protocol: `/mcp`, and what `hearth mcp` speaks over standard input.

The official package is not imported here: it takes seconds, and of the protocol a server of tools needs little. That
it is spoken right, the tests ask the official client.
"""

from server.api.mcp.routes import ROUTES

__all__ = ["ROUTES"]
