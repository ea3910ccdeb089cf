"""What a policy is, and what one run of it has done: the words of the schedule, the wire and the terminal."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from config.schedule import Scheduled

Outcome = Literal["done", "failed", "lost"]
"""lost: the process ended in the middle of the run."""


class Report(msgspec.Struct, frozen=True):
    """One run that ended well. `summary` is one sentence; `figures` are numbers by name, their unit in the name."""

    summary: str
    figures: Mapping[str, float] = {}
    details: tuple[str, ...] = ()
    """What a user should know besides, such as what was left out and why."""


class Run(msgspec.Struct, frozen=True):
    """One run as it is remembered. `error` says why it failed; times are in UTC."""

    policy: str
    number: int
    began: datetime
    ended: datetime | None
    outcome: Outcome | None
    """None while it goes on."""
    report: Report | None = None
    error: str | None = None
    attempt: int = 1


Tell = Callable[[str], None]
"""Takes a sentence on how far a run is; it may be called from any thread."""


class Policy(Protocol):
    """Something that the server does by itself. A run that cannot be completed raises HearthError and changes nothing
    that an earlier run made; cancelling it ends what it has begun, and the next run works."""

    @property
    def name(self) -> str: ...

    @property
    def spec(self) -> Scheduled: ...

    async def run(self, tell: Tell) -> Report: ...
