"""One turn of a conversation: find passages, generate, cite. Knows the runtime; knows nothing of HTTP or JSON."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from config.assistant import AssistantSpec
from server.errors import InvalidValue
from server.knowledge import Hit
from server.models.engine import Admitted, Citation, Delta, Event, Generate, Message, Passage
from server.models.stop import StopScanner
from server.runtime import Runtime, Target


@dataclass(frozen=True)
class Sampling:
    """What the client may ask of a generation; None leaves it to the model."""

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cited:
    """`start`:`end` are characters of the whole answer, which quote `hit.text[quote_start:quote_end]`."""

    start: int
    end: int
    quote_start: int
    quote_end: int
    index: int
    hit: Hit


@dataclass(frozen=True)
class Started:
    """The turn was admitted; nothing before this point cost the model anything."""

    prompt_tokens: int
    cached_tokens: int
    hits: Sequence[Hit] = ()


@dataclass(frozen=True)
class Part:
    """What was added to the answer since the last Part. Exactly the last one has a `finish_reason`."""

    text: str
    tokens: int
    citations: list[Cited] = field(default_factory=list)
    finish_reason: str | None = None


async def turn(
    runtime: Runtime, target: Target, messages: list[Message], sampling: Sampling
) -> AsyncGenerator["Started | list[Part]", None]:
    """Answer `messages`: first one Started, then the Parts, those that came together in one list.

    Raises HearthErrors, before Started or in the middle.
    """
    hits = await passages(runtime, target.assistant, messages)
    found = None if hits is None else [Passage(hit.text, _source(hit), _nearness(hit)) for hit in hits]
    request = Generate(messages, found, sampling.max_tokens)
    answer = _Answer(StopScanner(sampling.stop), hits or ())
    async with aclosing(target.model.generate(request)) as events:
        async for batch in events:
            if isinstance(batch[0], Admitted):
                yield Started(batch[0].prompt_tokens, batch[0].cached_tokens, hits or ())
            if parts := answer.take(batch):
                yield parts
            if answer.finished:
                return


async def passages(runtime: Runtime, assistant: AssistantSpec | None, messages: list[Message]) -> list[Hit] | None:
    """What the assistant's collections hold on the last user message, nearest first; None without knowledge."""
    if assistant is None or not assistant.knowledge:
        return None
    question = next((message.text for message in reversed(messages) if message.role == "user"), "").strip()
    if not question:
        return []
    collections = [runtime.collection(name) for name in assistant.knowledge]
    try:
        found = await asyncio.gather(*(runtime.search(each, question, k=assistant.k) for each in collections))
    except InvalidValue as error:
        raise InvalidValue(error.message, param="messages") from error
    hits = sorted((hit for each in found for hit in each.hits), key=lambda hit: -hit.score)
    limit = assistant.k or max(collection.spec.search.k for collection in collections)
    return hits[:limit]


def _source(hit: Hit) -> str:
    return f"{hit.filename}, {hit.heading}" if hit.heading else hit.filename


def _nearness(hit: Hit) -> float:
    """How near the passage's meaning is; a fused score says only how it ranked among the others."""
    return max(0.0, hit.scores.get("vector", hit.score))


class _Answer:
    """The text as the client has it so far: stop strings cut, citations kept only where their text was sent."""

    def __init__(self, stop: StopScanner, hits: Sequence[Hit]) -> None:
        self.finished = False
        self._stop = stop
        self._hits = hits
        self._sent = 0
        self._waiting: list[Citation] = []

    def take(self, events: list[Event]) -> list[Part]:
        """The parts that `events` make, up to the one that ends the answer."""
        parts = []
        for event in events:
            if isinstance(event, Delta) and not self.finished:
                parts.append(self._part(event))
        return parts

    def _part(self, delta: Delta) -> Part:
        text, stopped = self._stop.feed(delta.text)
        reason = "stop" if stopped else delta.finish_reason
        if reason is not None and not stopped:
            text += self._stop.flush()
        self.finished = reason is not None
        self._sent += len(text)
        self._waiting += delta.citations
        whole = [citation for citation in self._waiting if citation.end <= self._sent]
        self._waiting = [citation for citation in self._waiting if citation.end > self._sent]
        return Part(text, delta.tokens, [self._cited(citation) for citation in whole], reason)

    def _cited(self, citation: Citation) -> Cited:
        hit = self._hits[citation.passage]
        return Cited(citation.start, citation.end, citation.quote_start, citation.quote_end, citation.passage, hit)
