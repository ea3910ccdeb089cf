"""When the requests of one model go to another: decided of its state and its queue, now and before. Does no I/O."""

from server.errors import HearthError, ModelCrashed, ModelUnavailable, Overloaded, UpstreamFault
from server.models.route import Reason


def crowded(waiting: int, most: int, over: bool) -> bool:
    """With hysteresis, so that requests do not go to and fro: others take over at `most`, and until half of it."""
    return waiting > most // 2 if over else waiting >= most


class Switch:
    """One model's. `queue` is how many of its requests may wait before others are sent on; None for all it lets."""

    def __init__(self, queue: int | None) -> None:
        self._queue = queue
        self._over = False

    def before(self, state: str, available: bool, waiting: int) -> Reason | None:
        """Why the next request should go elsewhere; None for an `available` one, which may be loaded by being asked."""
        self._over = self._queue is not None and crowded(waiting, self._queue, self._over)
        if state == "loading":
            return "loading"
        if state == "failed" or not available:
            return "down"
        return "queue" if self._over else None


def after(fault: HearthError, state: str) -> Reason | None:
    """Why a request that ended with `fault`, before a word of its answer, should be tried elsewhere."""
    match fault:
        case Overloaded():
            return "queue"
        case UpstreamFault(status=429):
            return "queue"
        case ModelUnavailable():
            return "loading" if state == "loading" else "down"
        case ModelCrashed():
            return "down"
        case UpstreamFault(status=status) if status >= 500:
            return "down"
        case _:
            return None
