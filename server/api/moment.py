"""Points in time as wires write them that take no numbers."""

from datetime import UTC, datetime


def moment(seconds: float) -> str:
    """RFC 3339 in UTC, of seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
