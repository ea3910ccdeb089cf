"""The connections of one server that wait for their client, and which of them makes room for a new one."""

from dataclasses import dataclass, field
from typing import Protocol


class Waiting(Protocol):
    """A connection that can be given up."""

    def drop(self) -> None:
        """Close it without a word."""


@dataclass
class Crowd:
    """Those between two requests, and those whose request is not whole; of either kind the longest waiting first."""

    _idle: dict[Waiting, None] = field(default_factory=dict)
    _reading: dict[Waiting, None] = field(default_factory=dict)

    def is_idle(self, connection: Waiting) -> None:
        self._idle[connection] = None

    def is_reading(self, connection: Waiting) -> None:
        self._idle.pop(connection, None)
        self._reading[connection] = None

    def has_read(self, connection: Waiting) -> None:
        self._reading.pop(connection, None)

    def forget(self, connection: Waiting) -> None:
        """It is closed, or no longer this server's to close."""
        self._idle.pop(connection, None)
        self._reading.pop(connection, None)

    def make_room(self) -> bool:
        """Give one up, if any can be: of a client that does nothing sooner than of one that is sending."""
        for waiting in (self._idle, self._reading):
            if waiting:
                longest = next(iter(waiting))
                self.forget(longest)
                longest.drop()
                return True
        return False
