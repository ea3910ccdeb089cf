"""What a worker process runs: the contract between the child's loop and the code it hosts."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable


class Away(OSError):
    """What a service needs to get ready is away and may come back, such as a server: that is tried again for ever."""


class Item(NamedTuple):
    """One answer to a call; `last` ends that call."""

    call: int
    body: bytes
    last: bool


class Service(Protocol):
    """Made without arguments in the child; one thread calls everything.

    A method that raises means the process is broken: its reason is reported, the process ends and is replaced. A fault
    of one call is an Item like any other; only the service knows how it looks.
    """

    def open(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        """Get ready; blocks for as long as that takes. `progress` may be called at any time. Returns the ready body.

        A ValueError says that what it was told or given is wrong, so that it is not tried again; an Away that it is
        tried again however often. After anything else it is given up in the end.
        """
        ...

    def submit(self, call: int, body: bytes) -> list[Item]:
        """Take a call. Does not compute; what it returns is sent at once."""
        ...

    def step(self) -> list[Item]:
        """One unit of work; all it returns travels in one frame. Called only while `busy`."""
        ...

    def cancel(self, call: int) -> None:
        """Forget a call; it gets no more items. Idempotent, and no fault for a call that has ended."""
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has work."""
        ...

    def close(self) -> None:
        """Let everything go. Called at most once."""
        ...


@runtime_checkable
class AsyncService(Protocol):
    """As Service, for what waits more than it computes: everything runs in one event loop, calls side by side.

    A method that raises means the process is broken, `call` too: a fault of one call is something that it returns.
    """

    async def start(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        """Get ready. Returns the ready body. Raises as `Service.open` does."""
        ...

    async def call(self, body: bytes, send: Callable[[bytes], None]) -> bytes:
        """One call: `send` what comes early, return the last. Cancelled as soon as the gateway wants no more of it."""
        ...

    async def lasting(self) -> None:
        """Waits for as long as calls can be served; raises why they cannot any more. Begun once it is ready."""
        ...

    async def close(self) -> None:
        """Let everything go. Called at most once, also where `start` has failed."""
        ...
