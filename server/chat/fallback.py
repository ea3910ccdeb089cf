"""A turn of a model that has a fallback: where it goes, and when it is tried again there."""

import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

import msgspec

from server.chat.answer import Part
from server.chat.asked import Asked
from server.chat.started import Started
from server.errors import HearthError
from server.models.engine import Card
from server.models.fallback import Switch, after
from server.models.route import ROUTE, Reason, Route
from server.runtime import Runtime, Target

log = logging.getLogger(__name__)

Turn = AsyncGenerator[Started | list[Part], None]


async def with_fallback(runtime: Runtime, target: Target, asked: Asked, answer: Callable[[Target], Turn]) -> Turn:
    """The turn that `answer` makes of `target`, or of the first of its fallbacks that can answer now and as asked.

    What ends before its first word is tried on a fallback, as long as the client has been told nothing yet. Requests
    marked local_only stay where they were sent.
    """
    route = ROUTE.get() or Route()
    chosen = _chosen(runtime, target, asked, route)
    first: Started | None = None
    spoken = False
    while True:
        try:
            async with aclosing(answer(chosen)) as steps:
                async for step in steps:
                    if isinstance(step, Started):
                        started = step
                        if first is None:
                            first = step
                            yield step
                        continue
                    if first is not None:
                        first.prompt_tokens = started.prompt_tokens
                    spoken = True
                    yield step
            return
        except HearthError as fault:
            reason = after(fault, chosen.model.state)
            following = None if spoken or route.answering or reason is None else _following(chosen, asked, route)
            if reason is None or following is None:
                raise
            log.info("%s: %s", chosen.id, fault.message)
            _take(runtime, chosen, following, reason, asked, route)
            chosen = following


def _chosen(runtime: Runtime, target: Target, asked: Asked, route: Route) -> Target:
    """Where a turn goes at first: one way for all turns of a request."""
    if (taken := route.taken.get(target.id)) is not None:
        return next((each for each in (target, *_fallbacks(target)) if each.model.name == taken), target)
    chosen = target
    reason = _reason(target)
    if reason is not None and (following := _following(target, asked, route)) is not None:
        _take(runtime, target, following, reason, asked, route)
        chosen = following
    if not route.answering:
        route.taken[target.id] = chosen.model.name
    return chosen


def _reason(target: Target) -> Reason | None:
    """Why the model of `target` should not be asked now; None where it should."""
    switch = Switch(None) if target.fallback is None else target.fallback.switch
    return switch.before(target.model.state, target.model.available, target.model.queued)


def _fallbacks(target: Target) -> Iterator[Target]:
    while target.fallback is not None:
        target = target.fallback.to
        yield target


def _following(target: Target, asked: Asked, route: Route) -> Target | None:
    """The first of its fallbacks that can answer now, and can do what is asked."""
    if route.local_only:
        return None
    return next(
        (each for each in _fallbacks(target) if _reason(each) is None and _honours(each.model.card, asked)), None
    )


def _take(runtime: Runtime, target: Target, following: Target, reason: Reason, asked: Asked, route: Route) -> None:
    name = following.model.name
    log.info("%s: %s answers instead (%s)", target.id, name, reason)
    runtime.telemetry.fallback(target.model.name, name, reason)
    route.to, route.reason = name, reason
    route.ignored = _ignored(following.model.card, asked)
    route.taken[target.id] = name


# ---- what is asked --------------------------------------------------------------------------------------------------


def _honours(card: Card | None, asked: Asked) -> bool:
    """Whether a model keeps the promises that this request needs."""
    needed = {
        "response_format": asked.grammar is not None,
        "tool_choice": asked.tools is not None and asked.tools.forced,
        "logprobs": asked.sampling.top_logprobs is not None,
        "logit_bias": bool(asked.sampling.logit_bias),
        "prompt_logprobs": asked.prompt_logprobs is not None,
        "parts": any(message.parts for message in asked.messages),
    }
    if card is None or isinstance(asked.prompt, list):  # token ids are of one vocabulary
        return False
    honoured = card.honours
    return all(name in honoured for name, wanted in needed.items() if wanted)


def _ignored(card: Card | None, asked: Asked) -> tuple[str, ...]:
    """The names of what is asked and has no effect there."""
    honoured = frozenset() if card is None else card.honours
    named = [*msgspec.to_builtins(asked.sampling), *(["tools"] if asked.tools is not None else [])]
    return tuple(name for name in named if name not in honoured)
