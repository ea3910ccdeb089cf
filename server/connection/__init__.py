"""One client's connection: uvicorn's HTTP/1.1 with deadlines, bounds, and JSON for what it refuses.

Knows sockets and framing; nothing of routes, keys or models.
"""

from server.connection.bounds import Bounds
from server.connection.protocol import limited

__all__ = ["Bounds", "limited"]
