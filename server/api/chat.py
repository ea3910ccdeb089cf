"""`/v1/chat/completions`: OpenAI's chat wire over `server.chat`, whole and streamed."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post

from server import chat
from server.api import sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Direct, json
from server.api.wire import (
    Annotation,
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatMessage,
    ChatRequest,
    Choice,
    ChunkChoice,
    ChunkDelta,
    CompletionTokensDetails,
    PromptTokensDetails,
    Usage,
)
from server.chat import Cited, Part, Sampling, Started
from server.errors import InvalidValue, ModelUnavailable, UnsupportedParameter
from server.models.engine import Card, Message
from server.runtime import Runtime, Target

_json = msgspec.json.Encoder()

Turn = AsyncGenerator[Started | list[Part], None]

_SAMPLED = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_WITHOUT_EFFECT = ("user", "metadata", "store", "parallel_tool_calls")


@dataclass(frozen=True)
class Head:
    """What all chunks of one answer share."""

    id: str
    created: int
    model: str
    fingerprint: str


@post(
    ["/v1/chat/completions", "/chat/completions"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(ChatRequest, ChatCompletion, stream=ChatChunk, summary="Answer a conversation"),
)
async def chat_completions(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, ChatRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    no_effect = check(asked, target)
    turns = [_turn(runtime, target, asked) for _ in range(asked.n or 1)]
    head = Head(f"chatcmpl-{token_hex(16)}", int(time.time()), asked.model, runtime.fingerprint)
    headers = ignored(unknown + no_effect)
    if asked.stream:
        starts = await _admit(turns)
        usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return sse.EventStream(_chunks(head, turns, starts, usage), headers)
    whole = await _collect(head, turns)
    return json(whole, headers=headers)


# ---- what may be asked of which model -------------------------------------------------------------------------------


def check(asked: ChatRequest, target: Target) -> list[str]:
    """Names of the parameters without effect on this model's answers. Raises for those that would break a promise."""
    card = target.model.card
    if card is not None:
        if card.task != "chat":
            raise InvalidValue(f"The model `{target.id}` is for {card.task}, not for chat.", param="model")
        _refuse_unmet(asked, target.id, card)
    honours = card.honours if card else frozenset()
    sampled = [name for name in _SAMPLED if getattr(asked, name) is not None and name not in honours]
    # A model that calls no tools may be offered some, as editors always do; it answers without, and that is said.
    offered = ["tools"] if asked.tools and "tools" not in honours else []
    return sampled + offered + [name for name in _WITHOUT_EFFECT if getattr(asked, name) is not None]


def _refuse_unmet(asked: ChatRequest, model: str, card: Card) -> None:
    format_type = (asked.response_format or {"type": "text"}).get("type")
    forced = asked.tool_choice not in (None, "auto", "none")
    unmet = {
        "logprobs": bool(asked.logprobs) or bool(asked.top_logprobs),
        "logit_bias": bool(asked.logit_bias),
        "tool_choice": forced,
        "response_format": format_type != "text",
    }
    for name, needed in unmet.items():
        if needed and name not in card.honours:
            raise UnsupportedParameter(f"The model `{model}` cannot honour `{name}`: {card.description}", param=name)


def messages(asked: list[ChatMessage]) -> list[Message]:
    """The conversation as engines read it. Raises where a part is not text."""
    return [Message(_role(message.role), _text(message, index)) for index, message in enumerate(asked)]


def _role(role: str) -> str:
    return {"developer": "system", "function": "tool"}.get(role, role)


def _text(message: ChatMessage, index: int) -> str:
    if isinstance(message.content, str):
        return message.content
    for at, part in enumerate(message.content or ()):
        where = f"messages[{index}].content[{at}]"
        if part.type != "text":
            raise UnsupportedParameter(
                f"This model reads text only, not parts of type `{part.type[:60]}`.", param=where
            )
        if part.text is None:
            raise InvalidValue(f"A text part needs `text`: `{where}`.", param=where)
    return "\n".join(part.text or "" for part in message.content or ())


# ---- turns ----------------------------------------------------------------------------------------------------------


def _turn(runtime: Runtime, target: Target, asked: ChatRequest) -> Turn:
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    stops = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    return chat.turn(runtime, target, messages(asked.messages), Sampling(limit, stops))


async def _admit(turns: list[Turn]) -> list[Started]:
    """Await every turn's Started, so that faults up to there are ordinary HTTP errors."""
    try:
        if len(turns) == 1:
            return [await _started(turns[0])]
        return list(await asyncio.gather(*(_started(turn) for turn in turns)))
    except BaseException:
        for turn in turns:
            await turn.aclose()
        raise


async def _started(turn: Turn) -> Started:
    match await anext(turn, None):
        case Started() as started:
            return started
        case _:
            raise ModelUnavailable("The model ended before it began.", retry_after=1)


async def _collect(head: Head, turns: list[Turn]) -> ChatCompletion:
    if len(turns) == 1:  # nearly always: and then a task would cost as much as the rest of this
        answers = [await _whole(0, turns[0])]
    else:
        answers = await asyncio.gather(*(_whole(index, turn) for index, turn in enumerate(turns)))
    return ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        choices=[choice for choice, _, _ in answers],
        usage=_usage([started for _, started, _ in answers], sum(written for _, _, written in answers)),
        system_fingerprint=head.fingerprint,
    )


async def _whole(index: int, turn: Turn) -> tuple[Choice, Started, int]:
    started = await _started(turn)
    texts: list[str] = []
    cited: list[Cited] = []
    written = 0
    reason = "stop"
    async with aclosing(turn):
        async for parts in turn:
            for part in _added(parts):
                texts.append(part.text)
                cited += part.citations
                written += part.tokens
                reason = part.finish_reason or reason
    message = AnswerMessage("assistant", "".join(texts), annotations=[annotation(each) for each in cited])
    return Choice(index, message, reason), started, written


def annotation(cited: Cited) -> Annotation:
    hit = cited.hit
    return Annotation(
        type="file_citation",
        file_id=hit.document_id,
        filename=hit.filename,
        index=cited.index,
        start_index=cited.start,
        end_index=cited.end,
        chunk_id=hit.id,
        uri=hit.uri,
        quote=hit.text[cited.quote_start : cited.quote_end],
    )


def _usage(starts: list[Started], written: int) -> Usage:
    read = starts[0].prompt_tokens
    return Usage(
        prompt_tokens=read,
        completion_tokens=written,
        total_tokens=read + written,
        prompt_tokens_details=PromptTokensDetails(starts[0].cached_tokens),
        completion_tokens_details=CompletionTokensDetails(),
    )


# ---- chunks ---------------------------------------------------------------------------------------------------------


def _chunk(head: Head, choices: list[ChunkChoice], usage: bool, counted: Usage | None = None) -> bytes:
    chunk = ChatChunk(head.id, "chat.completion.chunk", head.created, head.model, choices, head.fingerprint)
    if usage:
        chunk.usage = counted
    return sse.event(_json.encode(chunk))


def _first(head: Head, n: int, usage: bool) -> bytes:
    """The role of every choice: some clients' helpers fail without it."""
    return b"".join(
        _chunk(head, [ChunkChoice(index, ChunkDelta(role="assistant", content=""))], usage) for index in range(n)
    )


class _Frames:
    """Chunks of one choice. What does not change between tokens is encoded once, because it is most of the bytes."""

    def __init__(self, head: Head, index: int, usage: bool) -> None:
        self._head, self._index, self._usage = head, index, usage
        sample = _chunk(head, [ChunkChoice(index, ChunkDelta(content="\x00"))], usage)
        self._before, _, self._after = sample.partition(b'"\\u0000"')

    def of(self, part: Part) -> bytes:
        if part.citations or part.finish_reason is not None:
            return self._special(part)
        return self._before + _json.encode(part.text) + self._after if part.text else b""

    def _special(self, part: Part) -> bytes:
        delta = ChunkDelta(content=part.text) if part.text else ChunkDelta()
        if part.citations:
            delta.annotations = [annotation(each) for each in part.citations]
        frames = b""
        if part.text or part.citations:
            frames = _chunk(self._head, [ChunkChoice(self._index, delta)], self._usage)
        if part.finish_reason is not None:
            frames += _chunk(self._head, [ChunkChoice(self._index, ChunkDelta(), part.finish_reason)], self._usage)
        return frames


async def _chunks(head: Head, turns: list[Turn], starts: list[Started], usage: bool) -> AsyncGenerator[bytes, None]:
    yield _first(head, len(turns), usage)
    written = 0
    if len(turns) == 1:  # nearly always: every generator a token passes through is a part of its price
        of = _Frames(head, 0, usage).of
        async with aclosing(turns[0]):
            async for step in turns[0]:
                parts = _added(step)
                written += sum(part.tokens for part in parts)
                if together := b"".join(map(of, parts)):
                    yield together
    else:
        frames = [_Frames(head, index, usage) for index in range(len(turns))]
        async with aclosing(_merged(turns)) as arriving:
            async for index, parts in arriving:
                written += sum(part.tokens for part in parts)
                if together := b"".join(map(frames[index].of, parts)):
                    yield together
    if usage:
        yield _chunk(head, [], usage, _usage(starts, written))
    yield sse.DONE


def _added(step: Started | list[Part]) -> list[Part]:
    """The parts of one step of a turn, which has none where the turn starts."""
    return step if isinstance(step, list) else []


async def _merged(turns: list[Turn]) -> AsyncGenerator[tuple[int, list[Part]], None]:
    """The parts of several answers as they come. One answer's fault ends all."""
    arrived: asyncio.Queue[tuple[int, list[Part]] | None] = asyncio.Queue()

    async def forward(index: int, turn: Turn) -> None:
        try:
            async with aclosing(turn):
                async for step in turn:
                    arrived.put_nowait((index, _added(step)))
        finally:
            arrived.put_nowait(None)

    tasks = [asyncio.create_task(forward(index, turn)) for index, turn in enumerate(turns)]
    try:
        for _ in tasks:
            while (item := await arrived.get()) is not None:
                yield item
            for task in tasks:
                if task.done():
                    task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
