"""Which model answers one request: the one that was asked for, or a fallback of it that can take it now."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from server.errors import HearthError
from server.models.engine import Card
from server.models.fallback import Switch, after
from server.models.route import ROUTE, Reason, Route
from server.runtime import Runtime, Target

log = logging.getLogger(__name__)

Told = TypeVar("Told")


@dataclass(frozen=True)
class Needs:
    """What a request asks of a model that would answer it."""

    honoured: Callable[[Card | None], bool]
    """Whether a model with this card keeps the promises that the request needs."""

    ignored: Callable[[Card | None], tuple[str, ...]] = lambda card: ()
    """The names of what is asked and has no effect there."""


class Way:
    """One request's, over `target` and its fallbacks; `now` is the model that it is at.

    Requests marked local_only stay where they were sent.
    """

    def __init__(self, runtime: Runtime, target: Target, needs: Needs) -> None:
        self.now = target
        self._runtime = runtime
        self._needs = needs
        self._route = ROUTE.get() or Route()
        self._begin(target)

    def _begin(self, target: Target) -> None:
        """All turns of one request go one way."""
        if (taken := self._route.taken.get(target.id)) is not None:
            self.now = next((each for each in (target, *_fallbacks(target)) if each.model.name == taken), target)
            return
        if (reason := _reason(target)) is not None and (following := self._following()) is not None:
            self._take(following, reason)
        if not self._route.answering:
            self._route.taken[target.id] = self.now.model.name

    def after(self, fault: HearthError) -> bool:
        """Whether a fallback takes over what ended with `fault` here, before the client was told anything."""
        reason = None if self._route.answering else after(fault, self.now.model.state)
        if reason is None or (following := self._following()) is None:
            return False
        log.info("%s: %s", self.now.id, fault.message)
        self._take(following, reason)
        return True

    def _following(self) -> Target | None:
        """The first fallback that can answer now, and can do what is asked."""
        if self._route.local_only:
            return None
        fit = (each for each in _fallbacks(self.now) if _reason(each) is None)
        return next((each for each in fit if self._needs.honoured(each.model.card)), None)

    def _take(self, following: Target, reason: Reason) -> None:
        name, route = following.model.name, self._route
        log.info("%s: %s answers instead (%s)", self.now.id, name, reason)
        self._runtime.telemetry.fallback(self.now.model.name, name, reason)
        route.to, route.reason = name, reason
        route.ignored = self._needs.ignored(following.model.card)
        route.taken[self.now.id] = name
        self.now = following


async def answered(runtime: Runtime, target: Target, needs: Needs, ask: Callable[[Target], Awaitable[Told]]) -> Told:
    """What `ask` of `target` tells, or of the first of its fallbacks that can take it now; for answers told whole."""
    if target.fallback is None:
        return await ask(target)
    way = Way(runtime, target, needs)
    while True:
        try:
            return await ask(way.now)
        except HearthError as fault:
            if not way.after(fault):
                raise


def _reason(target: Target) -> Reason | None:
    """Why the model of `target` should not be asked now; None where it should."""
    switch = Switch(None) if target.fallback is None else target.fallback.switch
    return switch.before(target.model.state, target.model.available, target.model.queued)


def _fallbacks(target: Target) -> Iterator[Target]:
    while target.fallback is not None:
        target = target.fallback.to
        yield target
