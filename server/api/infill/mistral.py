"""`/v1/fim/completions`: filling in the middle as Mistral's API has it, which editors ask for completions."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_hex
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, post
from msgspec import UNSET, Meta, UnsetType

from server import chat
from server.api import sse
from server.api.completions import asked_of, check
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.models import chosen
from server.api.reply import Direct, json
from server.api.turns import Count, Head, Turn, added, admit, whole
from server.api.wire import Name, Natural, Penalty, Probability, Seed, Usage
from server.api.wire_completions import CompletionRequest
from server.chat.infill import filled, infill_of
from server.runtime import Runtime

_json = msgspec.json.Encoder()
_MOST_STOPS = 64
"""Editors send every token and heading that a completion should not run into."""


class FimRequest(msgspec.Struct):
    """`prompt` is what stands before the gap, `suffix` what comes after it; `random_seed` is Mistral's `seed`."""

    prompt: str
    model: Name | None = None
    suffix: str | None = None
    max_tokens: Natural | None = None
    max_completion_tokens: Natural | None = None
    stream: bool | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(max_length=_MOST_STOPS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    random_seed: Seed | None = None
    seed: Seed | None = None


class FimMessage(msgspec.Struct):
    role: Literal["assistant"]
    content: str
    tool_calls: None = None


class FimChoice(msgspec.Struct):
    """`text` is the content again, for clients that read completions."""

    index: int
    message: FimMessage
    text: str
    finish_reason: str


class FimCompletion(msgspec.Struct):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[FimChoice]
    usage: Usage


class FimDelta(msgspec.Struct):
    """`content` always stands there: an editor that reads it checks nothing."""

    content: str
    role: Literal["assistant"] | UnsetType = UNSET


class FimChunkChoice(msgspec.Struct):
    index: int
    delta: FimDelta
    text: str
    finish_reason: str | None = None


class FimChunk(msgspec.Struct):
    """One event of a streamed answer; `usage` stands in the last one."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[FimChunkChoice]
    usage: Usage | UnsetType = UNSET


@post(
    ["/v1/fim/completions", "/fim/completions"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(FimRequest, FimCompletion, stream=FimChunk, summary="Fill in the middle"),
)
async def fim_completions(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, FimRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = chosen(runtime, asked.model)
    infill_of(target)
    completion = _completion(asked, target.id)
    no_effect = check(completion, target)
    prompt = await filled(target, asked.prompt, asked.suffix or "")
    limit = asked.max_tokens if asked.max_completion_tokens is None else asked.max_completion_tokens
    wanted = msgspec.structs.replace(asked_of(completion, prompt, 0), max_tokens=limit)
    turn = chat.turn(runtime, target, wanted)
    head = Head(f"fim-{token_hex(16)}", int(time.time()), target.id, runtime.fingerprint)
    [started] = await admit([turn])
    headers = ignored(unknown + no_effect)
    if asked.stream:
        return sse.EventStream(_chunks(head, turn, started.prompt_tokens), headers)
    count = Count()
    [said] = await whole([turn])
    count.add(said)
    text = "".join(part.text for part in said)
    reason = (said[-1].finish_reason if said else None) or "stop"
    choice = FimChoice(0, FimMessage("assistant", text), text, reason)
    usage = count.usage(started.prompt_tokens)
    return json(FimCompletion(head.id, "chat.completion", head.created, head.model, [choice], usage), headers=headers)


def _completion(asked: FimRequest, model: str) -> CompletionRequest:
    """The same request as OpenAI's wire has it."""
    return CompletionRequest(
        model=model,
        prompt=asked.prompt,
        suffix=asked.suffix,
        stop=asked.stop,
        temperature=asked.temperature,
        top_p=asked.top_p,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        seed=asked.random_seed if asked.seed is None else asked.seed,
    )


async def _chunks(head: Head, turn: Turn, read: int) -> AsyncGenerator[bytes, None]:
    yield _chunk(head, FimDelta("", "assistant"))
    count = Count()
    async with aclosing(turn):
        async for step in turn:
            parts = added(step)
            count.add(parts)
            for part in parts:
                if part.text or part.finish_reason is not None:
                    usage = count.usage(read) if part.finish_reason is not None else UNSET
                    yield _chunk(head, FimDelta(part.text), part.finish_reason, usage)
    yield sse.DONE


def _chunk(head: Head, delta: FimDelta, reason: str | None = None, usage: Usage | UnsetType = UNSET) -> bytes:
    choice = FimChunkChoice(0, delta, delta.content, reason)
    chunk = FimChunk(head.id, "chat.completion.chunk", head.created, head.model, [choice], usage)
    return sse.event(_json.encode(chunk))
