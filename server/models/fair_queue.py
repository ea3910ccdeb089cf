"""Whose request a model takes next, so that many of one caller do not make another wait. Pure: no clock, no I/O.

Fair queueing by virtual time: each caller's clock goes on by the cost of what it was given, and the waiting caller
whose clock is furthest behind goes next. One that comes back after a rest is set forward to the others, so that nobody
saves up.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class Room(NamedTuple):
    """What one model's worker holds at once.

    `places` are for requests as they come; `spare` ones besides are for callers that have none in the worker, which so
    wait for nobody else's to end. A request that costs at most `short` needs no place: the engine lets it overtake.
    """

    places: int
    spare: int
    short: float = 0.0


@dataclass(slots=True, eq=False)
class Ticket:
    """One request: whose it is, and what it costs in tokens. `inside` once it may go into the worker."""

    caller: str
    cost: float
    inside: bool = False
    overtook: bool = False


@dataclass(slots=True)
class _Line:
    """One caller's part: `clock` is its virtual time, `inside` how many places it has."""

    clock: float = 0.0
    inside: int = 0
    waiting: deque[Ticket] = field(default_factory=deque)


class FairQueue:
    """The requests of one model: in its worker (`running`), or `waiting` for a place there."""

    def __init__(self, room: Room, queue: int) -> None:
        """`queue` is how many may wait; it may be changed at any time."""
        self.room = room
        self.queue = queue
        self.waiting = 0
        self.running = 0
        self._overtaking = 0
        self._now = 0.0
        self._lines: dict[str, _Line] = {}
        self._queued: dict[str, _Line] = {}

    def enter(self, ticket: Ticket) -> bool:
        """Let a request in where there is room for it; False where it has to wait."""
        if ticket.cost <= self.room.short and self._overtaking < self.queue:
            ticket.inside = ticket.overtook = True
            self._overtaking += 1
            self.running += 1
            return True
        line = self._line(ticket.caller)
        if line.waiting or not self._fits(line):
            return False
        self._give(line, ticket)
        return True

    def share(self, caller: str) -> int:
        """How many requests of `caller` may wait: an equal part of the queue among all that wait, at least one.

        A caller that comes while others fill the queue so still finds its part, and theirs shrinks as they are served.
        For that a queue of Q may grow to Q * (1 + 1/2 + 1/3 ...), a term a caller.
        """
        others = len(self._queued) - (caller in self._queued)
        return max(1, self.queue // (others + 1))

    def waiting_of(self, caller: str) -> int:
        return len(self._queued[caller].waiting) if caller in self._queued else 0

    @property
    def callers(self) -> int:
        """How many callers have requests waiting."""
        return len(self._queued)

    def wait(self, ticket: Ticket) -> None:
        """Put a request behind those of its caller; `admit` returns it when its turn has come."""
        line = self._queued[ticket.caller] = self._line(ticket.caller)
        line.waiting.append(ticket)
        self.waiting += 1

    def leave(self, ticket: Ticket) -> None:
        """A request has ended, or waits no longer."""
        if not ticket.inside:
            line = self._queued[ticket.caller]
            line.waiting.remove(ticket)
            self._dequeued(ticket.caller, line)
            return
        self.running -= 1
        if ticket.overtook:
            self._overtaking -= 1
        else:
            self._lines[ticket.caller].inside -= 1

    def admit(self) -> Ticket | None:
        """The one that goes into the worker now; None while there is no room, or nobody waits."""
        fitting = (name for name, line in self._queued.items() if self._fits(line))
        caller = min(fitting, key=lambda name: self._lines[name].clock, default=None)
        if caller is None:
            return None
        line = self._lines[caller]
        ticket = line.waiting.popleft()
        self._dequeued(caller, line)
        self._give(line, ticket)
        return ticket

    def _line(self, caller: str) -> _Line:
        """Lines are kept: there are no more than keys."""
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = _Line()
        return line

    def _fits(self, line: _Line) -> bool:
        taken = self.running - self._overtaking
        return taken < self.room.places or (not line.inside and taken < self.room.places + self.room.spare)

    def _give(self, line: _Line, ticket: Ticket) -> None:
        ticket.inside = True
        self._now = max(self._now, line.clock)
        line.clock = self._now + ticket.cost
        line.inside += 1
        self.running += 1

    def _dequeued(self, caller: str, line: _Line) -> None:
        self.waiting -= 1
        if not line.waiting:
            del self._queued[caller]
