"""One turn of a conversation: find passages, render, generate, read, run tools. Knows nothing of HTTP or JSON."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing

import msgspec

from server.chat.answer import Answer, Marks
from server.chat.asked import Asked
from server.chat.equipping import equipped, plain
from server.chat.fallback import Turn, with_fallback
from server.chat.forwarded import forwarded, part
from server.chat.knowledge import Knowledge, grounds, source
from server.chat.loop import looped
from server.chat.mixed import MIXED
from server.chat.parts import placed, readable, shown, where
from server.chat.started import Started
from server.errors import ContextLengthExceeded, UnsupportedParameter, UpstreamFault
from server.knowledge import Hit
from server.models.dialect import Dialect, opened, with_system
from server.models.engine import Admitted, Generate, Image, Message, Passage
from server.models.model import Model
from server.models.remote import RemoteModel
from server.models.stop import StopScanner
from server.runtime import Runtime, Target

log = logging.getLogger(__name__)

_LONG = 50_000
"""Characters of a conversation from which its prompt is rendered beside the event loop."""


def turn(runtime: Runtime, target: Target, asked: Asked) -> Turn:
    """Answer `asked`: first one Started, then the Parts, those that came together in one list.

    Of what was found, as many of the nearest passages are given as the model's context holds beside the conversation.
    Tools that the assistant brings along are run here, in rounds; their calls and results are Parts too.
    Raises HearthErrors, before Started or in the middle.
    """
    if plain(target, asked):  # nearly always: every generator a token passes through is a part of its price
        return _one(runtime, target, asked, Knowledge(runtime, None))
    return _equipped(runtime, target, asked)


async def _equipped(runtime: Runtime, target: Target, asked: Asked) -> Turn:
    whole = await equipped(runtime, target, asked)
    knowledge = Knowledge(runtime, whole.retrieval)
    if whole.served:
        steps = looped(runtime, target, whole, knowledge, lambda round_: _one(runtime, target, round_, knowledge))
    else:
        steps = _one(runtime, target, whole, knowledge)
    async with aclosing(steps):
        async for step in steps:
            yield step


def _one(runtime: Runtime, target: Target, asked: Asked, knowledge: Knowledge) -> Turn:
    """One round, by the model or a fallback of it."""
    if target.fallback is None:
        return _answer(target, asked, knowledge)
    return with_fallback(runtime, target, asked, lambda chosen: _answer(chosen, asked, knowledge))


def _answer(target: Target, asked: Asked, knowledge: Knowledge) -> Turn:
    if isinstance(target.model, RemoteModel):
        return _forward(target, target.model, asked, knowledge)
    return _generate(target, target.model, asked, knowledge)


async def _forward(target: Target, model: RemoteModel, asked: Asked, knowledge: Knowledge) -> Turn:
    hits = await knowledge.seek(asked)
    defaults = target.assistant.defaults.said() if target.assistant is not None else {}
    while True:
        request = forwarded(asked, None if hits is None else grounds(hits), defaults)
        marks = Marks(knowledge.hits) if knowledge.hits else None
        started = Started(0, hits or ())
        try:
            async with aclosing(model.answer(request)) as batches:
                async for pieces in batches:
                    if not pieces:
                        yield started
                        continue
                    started.prompt_tokens = pieces[-1].prompt_tokens
                    yield [part(piece, marks) for piece in pieces]
            return
        except UpstreamFault as fault:
            if fault.code != ContextLengthExceeded.code or hits is None or len(hits) < 2:
                raise
            hits = _fewer(target, hits)


async def _generate(target: Target, model: Model, asked: Asked, knowledge: Knowledge) -> Turn:
    hits = await knowledge.seek(asked)
    while True:
        request, answer = await _asked(target, asked, hits, knowledge.hits)
        try:
            async with aclosing(model.generate(request)) as events:
                async for batch in events:
                    if isinstance(batch[0], Admitted):
                        yield Started(batch[0].prompt_tokens, hits or (), batch[0].ids)
                    if parts := answer.take(batch):
                        yield parts
                    if answer.is_cut:
                        return
            return
        except ContextLengthExceeded:  # told before anything is computed, so asking again costs little
            if hits is None or len(hits) < 2:
                raise
            hits = _fewer(target, hits)


def _fewer(target: Target, hits: list[Hit]) -> list[Hit]:
    log.info("%s: %d passages do not fit the context, trying the nearest half", target.id, len(hits))
    return hits[: len(hits) // 2]


async def count(runtime: Runtime, target: Target, asked: Asked) -> int:
    """The tokens of prompt that `turn` would report for `asked`, passages included; nothing is generated."""
    asked = asked if plain(target, asked) else await equipped(runtime, target, asked)
    hits = await Knowledge(runtime, asked.retrieval).seek(asked)
    card = target.model.card
    while True:
        request, _ = await _asked(target, asked, hits, None)
        tokens = await target.model.count(request)
        if request.prompt is None or card is None or tokens < card.context or hits is None or len(hits) < 2:
            return tokens
        hits = hits[: len(hits) // 2]


async def _asked(
    target: Target, asked: Asked, hits: Sequence[Hit] | None, named: Sequence[Hit] | None
) -> tuple[Generate, Answer]:
    """The request, and what reads its answer: `hits` are told to the model, `named` are what it may name by number."""
    dialect = target.model.dialect()
    check_parts(target, asked.messages)
    if dialect is None:
        return _plain(asked, hits)
    if asked.prompt is not None:
        return _bare(asked)
    return await _spoken(asked, hits, named, dialect)


def check_parts(target: Target, messages: Sequence[Message], *, pictures: bool = True) -> None:
    """Raises UnsupportedParameter, naming the first of them, where the model does not read parts other than text.

    Without `pictures` those too that see read none, for what is asked for has no place for them.
    """
    card = target.model.card
    honours = card.honours if card is not None else frozenset[str]()
    reads = "This model reads text and pictures" if "images" in honours else "This model reads text only"
    if "images" in honours and not pictures:
        honours, reads = honours - {"images"}, "What is asked for here is a text"
    for number, message in enumerate(messages):
        for at, each in enumerate(message.parts or ()):
            if not readable(each, honours):
                what = f"{reads}, not parts of type `{each['type'][:60]}`."
                raise UnsupportedParameter(what, param=where(message, number, at))


def _plain(asked: Asked, hits: Sequence[Hit] | None) -> tuple[Generate, Answer]:
    """For an engine that takes messages as they are and quotes passages itself."""
    found = None if hits is None else [Passage(hit.text, source(hit), _nearness(hit)) for hit in hits]
    messages = _conversation(asked)
    if asked.begun:
        raise UnsupportedParameter("This model goes on with no answer that is begun already.", param="messages")
    if asked.prompt is not None:
        if not isinstance(asked.prompt, str):
            raise UnsupportedParameter("This model has no token ids; send the prompt as text.", param="prompt")
        messages = [Message("user", asked.prompt)]
    request = Generate(
        messages,
        found,
        asked.max_tokens,
        sampling=asked.sampling,
        grammar=asked.grammar,
        tools=[] if asked.tools is None else list(asked.tools.specs),
        must_call=asked.tools is not None and asked.tools.forced,
    )
    return request, Answer(StopScanner(asked.stop), hits or ())


def _conversation(asked: Asked) -> list[Message]:
    """All messages: the client's, what the server ran in earlier turns and rounds, the assistant's system prompt."""
    messages = [*MIXED.restored(asked.messages), *asked.said]
    return opened(messages, asked.system) if asked.system else messages


def _bare(asked: Asked) -> tuple[Generate, Answer]:
    """For a prompt that the model goes on with as it stands."""
    request = Generate(
        max_tokens=asked.max_tokens,
        prompt=asked.prompt,
        sampling=asked.sampling,
        grammar=asked.grammar,
        prompt_logprobs=asked.prompt_logprobs,
        token_ids=asked.token_ids,
    )
    return request, Answer(StopScanner(asked.stop), ())


async def _spoken(
    asked: Asked, hits: Sequence[Hit] | None, named: Sequence[Hit] | None, dialect: Dialect
) -> tuple[Generate, Answer]:
    """For a model with a chat template: passages become a part of its prompt, and pictures are put into it."""
    images: list[Image] = []
    if any(message.parts for message in asked.messages):
        told, images = await asyncio.to_thread(placed, asked.messages)
        asked = msgspec.structs.replace(asked, messages=told)
    messages = [_inert(dialect, message) for message in _conversation(asked)]
    if hits is not None:
        messages = with_system(messages, dialect.inert(grounds(hits)))
    if sum(len(message.text) for message in messages) < _LONG:
        prompt = dialect.render(messages, asked.tools, asked.options)
    else:
        prompt = await asyncio.to_thread(dialect.render, messages, asked.tools, asked.options)
    if asked.begun:
        prompt = dialect.begun(prompt, asked.begun)
    shown(prompt, images)
    request = Generate(
        max_tokens=asked.max_tokens,
        prompt=prompt,
        sampling=asked.sampling,
        grammar=dialect.grammar(prompt, asked.tools, asked.grammar),
        markers=[] if asked.tools is None else list(dialect.tools.markers),
        token_ids=asked.token_ids,
        images=images,
    )
    answer = Answer(
        StopScanner(asked.stop),
        (),
        splitter=dialect.splitter(prompt),
        parser=None if asked.tools is None else dialect.tools.parser(asked.tools.specs),
        many=asked.tools is None or asked.tools.many,
        forced=asked.tools is not None and asked.tools.forced,
        marks=Marks(named) if named else None,
    )
    return request, answer


def _inert(dialect: Dialect, message: Message) -> Message:
    """What a tool said, of the client or of the server, ends no turn and calls nothing."""
    if message.role != "tool" or (text := dialect.inert(message.text)) == message.text:
        return message
    return msgspec.structs.replace(message, text=text)


def _nearness(hit: Hit) -> float:
    """How near the passage's meaning is; a fused score says only how it ranked among the others."""
    return max(0.0, hit.scores.get("vector", hit.score))
