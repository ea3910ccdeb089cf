"""When a worker that ended is started again, and when one counts as hung; pure decisions."""

from dataclasses import dataclass

FIRST_DELAY = 0.2
LONGEST_DELAY = 30.0
STABLE_AFTER = 60.0
MOST_FAILED_STARTS = 5
_DOUBLINGS = 32
"""More than that, and the number has no room after some hours of trying."""


@dataclass(frozen=True)
class History:
    """How a worker's lives went: ends in a row, and how many of those never got ready."""

    ends: int = 0
    failed_starts: int = 0

    def after(self, ready_for: float | None) -> "History":
        """With one more end: `ready_for` seconds after getting ready, or None where it never did."""
        if ready_for is None:
            return History(self.ends + 1, self.failed_starts + 1)
        return History(1 if ready_for >= STABLE_AFTER else self.ends + 1, 0)

    def waiting(self) -> "History":
        """With one more end that is no fault of its own: what it needs is away, and may come back."""
        return History(self.ends + 1, self.failed_starts)


def delay(history: History) -> float | None:
    """Seconds until the next start, doubling with every end in a row; None to give up."""
    if history.failed_starts >= MOST_FAILED_STARTS:
        return None
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(history.ends - 1, _DOUBLINGS))


def hung(silent_for: float, busy_for: float, *, silence_limit: float, busy_limit: float) -> str | None:
    """Why a process counts as hung: it does not answer at all, or one method of its service takes too long."""
    if silent_for > silence_limit:
        return f"it has not answered for {silent_for:.0f} s"
    if busy_for > busy_limit:
        return f"one step has taken {busy_for:.0f} s"
    return None
