"""Who sends a request, carried beside it from the wire to the model. Knows no keys, no HTTP and no limits."""

from contextvars import ContextVar


class Caller:
    """One who asks: the holder of a key, or everybody together where none is declared.

    This base has no limits; what runs without a request, such as keeping a collection up to date, is done under it.
    """

    def __init__(self, name: str = "", queue: int | None = None) -> None:
        """`queue` is how many of its requests may wait for one model, None for as many as the model lets."""
        self.name = name
        self.queue = queue

    def opens(self, scope: str) -> bool:
        """Whether it may do what needs `scope`."""
        return True

    def reserve(self, tokens: int) -> None:
        """Take what a request will probably use. Raises RateLimitExceeded where that is more than is left."""

    def settle(self, reserved: int, used: int) -> None:
        """Set right what `reserve` took, once it is known what the request used."""


NOBODY = Caller()

CALLER: ContextVar[Caller] = ContextVar("hearth.caller", default=NOBODY)
"""Set for the length of a request, and inherited by the tasks it starts."""


class Charge:
    """What one request costs its caller: `expected` tokens of prompt at first, the `used` ones in the end.

    `cost` is what it will take of the model, answer included, as a guess in tokens.
    """

    __slots__ = ("caller", "cost", "expected", "used")

    def __init__(self, expected: int, cost: int) -> None:
        self.caller = CALLER.get()
        self.expected = expected
        self.cost = cost
        self.used = 0

    def reserve(self) -> None:
        """Raises RateLimitExceeded where the caller has not as much left; then nothing is to be settled."""
        self.caller.reserve(self.expected)

    def settle(self) -> None:
        self.caller.settle(self.expected, self.used)
