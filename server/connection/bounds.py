"""What one client may take: time, bytes and connections."""

from dataclasses import dataclass

URL_BYTES = 16 * 2**10
HEAD_BYTES = 32 * 2**10
HEADERS = 128
FRAMING_BYTES = 16 * 2**10
FRAMING_A_BYTE = 16
"""How much chunked encoding may add to a body: a floor, and so many bytes for each of the body's own."""

SLOWEST = 1024
"""Bytes a second under which a body that keeps coming, or an answer that is being read, has stalled all the same."""


@dataclass(frozen=True)
class Bounds:
    """What one client may take. `connections` of all clients together, the others in seconds."""

    connections: int = 1024
    header: float = 10.0
    body: float = 30.0
    write: float = 30.0
    keep_alive: float = 75.0


def body_left(limit: float, since: float, silent: float, read: int) -> float:
    """How long a body may still take: `limit` seconds of silence, or of being slower than `SLOWEST` overall."""
    return min(limit - silent, limit + read / SLOWEST - since)
