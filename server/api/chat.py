"""`/v1/chat/completions`: OpenAI's chat wire over `server.chat`, whole and streamed."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post
from msgspec import UNSET, UnsetType

from server import chat
from server.api import chat_calls, sse
from server.api.chat_asked import asked_of, check
from server.api.chat_older import is_older, modern
from server.api.decode import decode, fields, ignored
from server.api.document import documented
from server.api.reply import Direct, json
from server.api.sampled import Counted, counted
from server.api.turns import Count, Head, Turn, added, admit, merged, steps, whole
from server.api.wire import (
    Annotation,
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    ChunkDelta,
    FoundPassage,
    Logprobs,
    TokenLogprob,
    TopLogprob,
    UrlAnnotation,
    Usage,
)
from server.chat import Cited, Part, Started
from server.models import engine
from server.runtime import Runtime

log = logging.getLogger(__name__)

_json = msgspec.json.Encoder()


@post(
    ["/v1/chat/completions", "/chat/completions"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(ChatRequest, ChatCompletion, stream=ChatChunk, summary="Answer a conversation"),
)
async def chat_completions(request: Request[Any, Any, Any]) -> Direct:
    told, unknown = await decode(request, ChatRequest)
    asked = modern(told)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    usage = counted(asked)
    no_effect = check(asked, target)
    older = is_older(told)
    wanted = [asked_of(asked, target, index, computed=older or target.computes) for index in range(asked.n or 1)]
    if target.may_forward and not older:
        sent = fields(await request.body())
        wanted = [msgspec.structs.replace(each, sent=sent) for each in wanted]
    turns = [chat.turn(runtime, target, each) for each in wanted]
    head = Head(f"chatcmpl-{token_hex(16)}", int(time.time()), asked.model, runtime.fingerprint)
    headers = ignored([] if target.forwards and not older else unknown + no_effect)
    shows = asked.retrieval is not None
    if asked.stream:
        starts = await admit(turns)
        return sse.EventStream(_chunks(head, turns, starts, usage, older, shows), headers)
    return json(await _collect(head, turns, older, shows), headers=headers)


# ---- turns ----------------------------------------------------------------------------------------------------------


async def _collect(head: Head, turns: list[Turn], older: bool, shows: bool) -> ChatCompletion:
    starts = await admit(turns)
    said = await whole(turns)
    count = Count()
    for parts in said:
        count.add(parts)
    return ChatCompletion(
        id=head.id,
        object="chat.completion",
        created=head.created,
        model=head.model,
        choices=[_choice(index, parts, older) for index, parts in enumerate(said)],
        usage=count.usage(starts[0].prompt_tokens),
        system_fingerprint=head.fingerprint,
        prompt_token_ids=list(starts[0].ids) or UNSET,
        retrieval=_found(starts[0]) if shows else UNSET,
    )


def _found(started: Started) -> list[FoundPassage]:
    return [
        FoundPassage(
            citation=number,
            collection=hit.collection,
            file_id=hit.document_id,
            filename=hit.filename,
            chunk_id=hit.id,
            uri=hit.uri,
            score=round(hit.score, 6),
            text=hit.text,
        )
        for number, hit in enumerate(started.hits, 1)
    ]


def _choice(index: int, said: list[Part], older: bool) -> Choice:
    reason = said[-1].finish_reason if said else None
    return Choice(index, _message(said, older), _reason(reason or "stop", older), _logprobs(said), _ids(said))


def _ids(said: list[Part]) -> list[int] | UnsetType:
    return [token for part in said for token in part.ids] or UNSET


def _reason(reason: str, older: bool) -> str:
    return "function_call" if older and reason == "tool_calls" else reason


def _message(said: list[Part], older: bool) -> AnswerMessage:
    text = "".join(part.text for part in said if not part.refusal)
    refusal = "".join(part.text for part in said if part.refusal)
    calls = chat_calls.whole(call for part in said for call in part.calls)
    message = AnswerMessage(
        "assistant",
        None if (calls or refusal) and not text else text,
        refusal=refusal or None,
        annotations=[each for part in said for each in annotations(part)],
    )
    if reasoning := "".join(part.reasoning for part in said):
        message.reasoning_content = reasoning
    if calls and older:
        message.function_call = calls[0].function
    elif calls:
        message.tool_calls = calls
    message.server_tool_calls = chat_calls.served(run for part in said for run in part.runs) or UNSET
    return message


def _logprobs(said: list[Part]) -> Logprobs | None:
    tokens = [token_logprob(token) for part in said for token in part.logprobs]
    return Logprobs(tokens) if tokens else None


def token_logprob(token: engine.TokenLogprob) -> TokenLogprob:
    top = [TopLogprob(each.token, each.logprob or 0.0, list(each.data)) for each in token.top]
    return TokenLogprob(token.token, token.logprob or 0.0, list(token.data), top)


def annotations(part: Part) -> list[Annotation | UrlAnnotation]:
    """Those of this server's knowledge, and those of a remote model that have a form clients know."""
    found: list[Annotation | UrlAnnotation] = [annotation(cited) for cited in part.citations]
    for told in part.annotations:
        try:
            found.append(msgspec.convert(told, Annotation | UrlAnnotation))
        except msgspec.ValidationError as error:
            log.info("an annotation of another form than OpenAI's is left out: %s", error)
    return found


def annotation(cited: Cited) -> Annotation:
    hit = cited.hit
    told = Annotation(
        file_id=hit.document_id,
        filename=hit.filename,
        index=cited.index,
        start_index=cited.start,
        end_index=cited.end,
        chunk_id=hit.id,
        uri=hit.uri,
        quote=hit.text[cited.quote_start : cited.quote_end],
    )
    if cited.answer_start is not None and cited.answer_end is not None:
        told.answer = told.quote[cited.answer_start - cited.start : cited.answer_end - cited.start]
        told.answer_start_index, told.answer_end_index = cited.answer_start, cited.answer_end
    return told


# ---- chunks ---------------------------------------------------------------------------------------------------------


def _chunk(head: Head, choices: list[ChunkChoice], counts: bool, usage: Usage | None = None) -> ChatChunk:
    """`counts` says that the client asked for `usage`, which is null where it is not told yet."""
    chunk = ChatChunk(head.id, "chat.completion.chunk", head.created, head.model, choices, head.fingerprint)
    if counts:
        chunk.usage = usage
    return chunk


def _event(chunk: ChatChunk) -> bytes:
    return sse.event(_json.encode(chunk))


def _first(head: Head, n: int, counts: bool, usage: Usage | None, started: Started, shows: bool) -> bytes:
    """The role of every choice: some clients' helpers fail without it."""
    chunks = [
        _chunk(head, [ChunkChoice(index, ChunkDelta(role="assistant", content=""))], counts, usage)
        for index in range(n)
    ]
    if started.ids:
        chunks[0].prompt_token_ids = list(started.ids)
    if shows:
        chunks[0].retrieval = _found(started)
    return b"".join(map(_event, chunks))


def _say(delta: ChunkDelta, part: Part) -> None:
    if part.text and part.refusal:
        delta.refusal = part.text
    elif part.text:
        delta.content = part.text


class _Frames:
    """Chunks of one choice. What does not change between tokens is encoded once, because it is most of the bytes."""

    def __init__(self, head: Head, index: int, counts: bool, older: bool) -> None:
        self._head, self._index, self._counts, self._older = head, index, counts, older
        sample = _event(_chunk(head, [ChunkChoice(index, ChunkDelta(content="\x00"))], counts))
        self._before, _, self._after = sample.partition(b'"\\u0000"')

    def of(self, part: Part) -> bytes:
        told = part.reasoning or part.calls or part.logprobs or part.citations or part.annotations or part.ids
        if told or part.runs or part.refusal or part.finish_reason is not None:
            return b"".join(_event(_chunk(self._head, [choice], self._counts)) for choice in self.choices(part))
        return self._before + _json.encode(part.text) + self._after if part.text else b""

    def choices(self, part: Part) -> list[ChunkChoice]:
        """What `part` adds; the reason for the end comes by itself."""
        delta = ChunkDelta()
        if part.reasoning:
            delta.reasoning_content = part.reasoning
        _say(delta, part)
        calls = chat_calls.deltas(part.calls)
        if calls and self._older:
            delta.function_call = calls[0].function
        elif calls:
            delta.tool_calls = calls[:1]
        if part.citations or part.annotations:
            delta.annotations = annotations(part)
        if part.runs:
            delta.server_tool_calls = [chat_calls.served_delta(run) for run in part.runs]
        choices = []
        if delta != _NOTHING or part.logprobs or part.ids:
            choices.append(ChunkChoice(self._index, delta, logprobs=_logprobs([part]), token_ids=_ids([part])))
        for call in calls[1:]:  # one a chunk: LlamaIndex reads no other
            choices.append(ChunkChoice(self._index, ChunkDelta(tool_calls=[call])))
        if part.finish_reason is not None:
            choices.append(ChunkChoice(self._index, ChunkDelta(), _reason(part.finish_reason, self._older)))
        return choices


_NOTHING = ChunkDelta()


class _Counting(_Frames):
    """As vLLM's `continuous_usage_stats` has it: every chunk tells what all choices have used so far.

    The reason for the end comes with the last token.
    """

    def __init__(self, head: Head, index: int, older: bool, started: Started) -> None:
        super().__init__(head, index, True, older)
        self._started = started

    def counted(self, part: Part, count: Count) -> bytes:
        count.add([part])
        choices = self.choices(part)
        if len(choices) > 1 and choices[-1].finish_reason is not None:
            end = choices.pop()
            choices[-1].finish_reason = end.finish_reason
        usage = count.usage(self._started.prompt_tokens)
        return b"".join(_event(_chunk(self._head, [choice], True, usage)) for choice in choices)


async def _chunks(
    head: Head, turns: list[Turn], starts: list[Started], usage: Counted, older: bool, shows: bool
) -> AsyncGenerator[bytes, None]:
    count, counts = Count(), usage != "never"
    at_first = count.usage(starts[0].prompt_tokens) if usage == "always" else None
    yield _first(head, len(turns), counts, at_first, starts[0], shows)
    if usage == "always":
        counting = [_Counting(head, index, older, starts[0]) for index in range(len(turns))]
        async with aclosing(steps(turns)) as arriving:
            async for index, parts in arriving:
                if together := b"".join(counting[index].counted(part, count) for part in parts):
                    yield together
    elif len(turns) == 1:  # nearly always: every generator a token passes through is a part of its price
        of = _Frames(head, 0, counts, older).of
        async with aclosing(turns[0]):
            async for step in turns[0]:
                parts = added(step)
                count.add(parts)
                if together := b"".join(map(of, parts)):
                    yield together
    else:
        frames = [_Frames(head, index, counts, older) for index in range(len(turns))]
        async with aclosing(merged(turns)) as arriving:
            async for index, parts in arriving:
                count.add(parts)
                if together := b"".join(map(frames[index].of, parts)):
                    yield together
    if counts:
        yield _event(_chunk(head, [], counts, count.usage(starts[0].prompt_tokens)))
    yield sse.DONE
