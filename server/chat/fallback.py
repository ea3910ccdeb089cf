"""A turn of a model that has a fallback: tried there while its client has been told nothing."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from server.chat.answer import Part
from server.chat.asked import Asked
from server.chat.parts import readable
from server.chat.started import Started
from server.errors import HearthError
from server.models.engine import Card
from server.routing import Needs, Way
from server.runtime import Runtime, Target

Turn = AsyncGenerator[Started | list[Part], None]


async def with_fallback(runtime: Runtime, target: Target, asked: Asked, answer: Callable[[Target], Turn]) -> Turn:
    """The turn that `answer` makes of `target`, or of the first of its fallbacks that can answer now and as asked.

    What ends before its first word is tried on a fallback, as long as the client has been told nothing yet.
    """
    way = Way(runtime, target, Needs(lambda card: _honours(card, asked), lambda card: _ignored(card, asked)))
    first: Started | None = None
    spoken = False
    while True:
        try:
            async with aclosing(answer(way.now)) as steps:
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
            if spoken or not way.after(fault):
                raise


# ---- what is asked --------------------------------------------------------------------------------------------------


def _honours(card: Card | None, asked: Asked) -> bool:
    """Whether a model keeps the promises that this request needs."""
    needed = {
        "response_format": asked.grammar is not None,
        "tool_choice": asked.tools is not None and asked.tools.forced,
        "logprobs": asked.sampling.top_logprobs is not None,
        "logit_bias": bool(asked.sampling.logit_bias),
        "prompt_logprobs": asked.prompt_logprobs is not None,
    }
    if card is None or isinstance(asked.prompt, list):  # token ids are of one vocabulary
        return False
    honoured = card.honours
    read = all(readable(part, honoured) for message in asked.messages for part in message.parts or ())
    return read and all(name in honoured for name, wanted in needed.items() if wanted)


def _ignored(card: Card | None, asked: Asked) -> tuple[str, ...]:
    """The names of what is asked and has no effect there."""
    honoured = frozenset() if card is None else card.honours
    named = [*msgspec.to_builtins(asked.sampling), *(["tools"] if asked.tools is not None else [])]
    return tuple(name for name in named if name not in honoured)
