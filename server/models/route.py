"""Which way one request may go and which it went, carried beside it from the wire to the models. Knows no HTTP."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

Reason = Literal["queue", "loading", "down"]
"""Why a request went to a fallback: its model was full, was not ready yet, or failed."""


@dataclass
class Route:
    """One request's. `local_only` forbids every model but the one that was asked for, and that one to be remote.

    `to` is the model that answers instead, and `reason` why; None where the one that was asked for answers. `ignored`
    are the parameters without effect there. Once `answering`, the client has been told all this.
    """

    local_only: bool = False
    to: str | None = None
    reason: Reason | None = None
    ignored: tuple[str, ...] = ()
    answering: bool = False
    taken: dict[str, str] = field(default_factory=dict)
    """The model that answers for each id, so that all choices of one request come from one model."""


ROUTE: ContextVar[Route | None] = ContextVar("hearth.route", default=None)
"""Set for the length of a request, and inherited by the tasks it starts; None for what the server does by itself."""
