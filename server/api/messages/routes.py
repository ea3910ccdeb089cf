"""`/v1/messages` and `/v1/messages/count_tokens`: Anthropic's wire over `server.chat`, whole and streamed."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from secrets import token_hex
from typing import Any

import msgspec
from litestar import Request, post
from msgspec import UNSET, UnsetType

from server import chat
from server.api import chat_calls, faults, sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.messages.asked import asked_of, check, thinks
from server.api.messages.blocks import Blocks, Thoughts, whole
from server.api.messages.wire import (
    CountTokensRequest,
    Event,
    Message,
    MessageDelta,
    MessagesFaultReply,
    MessagesRequest,
    MessageStart,
    MessagesTokensDetails,
    MessageStop,
    MessageStopped,
    MessagesUsage,
    MessageTokensCount,
    Ping,
)
from server.api.reply import Direct, Reply, json
from server.api.request_state import id_of
from server.api.turns import Count, Turn, added, admit
from server.api.wire import ServerToolCall
from server.chat import Part, Started, ToolDone, ToolRun
from server.runtime import Runtime

_BETA = "mcp-client"
"""How the beta is named whose clients know blocks of calls that a server ran."""

_encoder = msgspec.json.Encoder()


@post(
    ["/v1/messages", "/messages"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        MessagesRequest, Message, stream=Event, fault=MessagesFaultReply, summary="Answer a conversation (Anthropic)"
    ),
)
async def messages(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, MessagesRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    no_effect = check(asked, target)
    turn = chat.turn(runtime, target, asked_of(asked, target))
    headers = ignored(unknown + no_effect) | faults.request_id(request.scope)
    answer = _Answer(asked, runs=_BETA in request.headers.get("anthropic-beta", ""))
    (started,) = await admit([turn])
    if asked.stream:
        return sse.EventStream(answer.events(turn, started), headers, _framing(id_of(request.scope)))
    whole_ = await answer.whole(turn, started)
    return json(whole_, headers=headers | ({"x-hearth-tools": ",".join(answer.called)} if answer.called else {}))


@post(
    ["/v1/messages/count_tokens", "/messages/count_tokens"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(
        CountTokensRequest, MessageTokensCount, fault=MessagesFaultReply, summary="Count a prompt's tokens (Anthropic)"
    ),
)
async def count_tokens(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, CountTokensRequest)
    runtime: Runtime = request.app.state["runtime"]
    target = runtime.target(asked.model)
    headers = ignored(unknown + check(asked, target)) | faults.request_id(request.scope)
    tokens = await chat.count(runtime, target, asked_of(asked, target))
    return json(MessageTokensCount(tokens), headers=headers)


def _framing(request_id: str) -> sse.Framing:
    """Claude Code counts pings as life; Anthropic's own servers send them too."""
    return sse.Framing(
        sse.OPENAI.media_type, _PING, lambda error: _frame("error", faults.anthropic_body(error, request_id))
    )


def _frame(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _event(event: Event) -> bytes:
    return _frame(str(event.__struct_config__.tag), _encoder.encode(event))


_PING = _event(Ping())


class _Answer:
    """One answer under way."""

    def __init__(self, asked: MessagesRequest, *, runs: bool) -> None:
        self._id = f"msg_{token_hex(12)}"
        self._model = asked.model
        self._blocks = Blocks(_thoughts(asked), runs=runs)
        self._shows_runs = runs
        self._runs: list[ToolRun] = []
        self._count = Count()

    @property
    def called(self) -> list[str]:
        """The tools that the server has run, as they ended."""
        return [run.name for run in self._runs if isinstance(run, ToolDone)]

    async def whole(self, turn: Turn, started: Started) -> Message:
        parts = []
        async with aclosing(turn):
            async for step in turn:
                parts += added(step)
        self._count.add(parts)
        self._runs = [run for part in parts for run in part.runs]
        message = self._message(started)
        message.content = whole(event for part in parts for event in self._blocks.feed(part))
        message.stop_reason = self._blocks.stop_reason
        message.stop_sequence = self._blocks.stop_sequence
        message.server_tool_calls = self._served()
        return message

    async def events(self, turn: Turn, started: Started) -> AsyncGenerator[bytes, None]:
        yield _event(MessageStart(self._message(started))) + _PING
        feed = self._blocks.feed
        async with aclosing(turn):
            async for step in turn:
                parts = added(step)
                self._count.add(parts)
                if frames := b"".join(_event(event) for part in parts for event in (*feed(part), *self._ran(part))):
                    yield frames
        stopped = MessageStopped(self._blocks.stop_reason, self._blocks.stop_sequence)
        yield _event(MessageDelta(stopped, self._usage(started), self._served())) + _event(MessageStop())

    def _ran(self, part: Part) -> list[Ping]:
        """What the server runs, as it happens: clients pass over a ping, and whoever looks finds it there."""
        self._runs += part.runs
        shown = part.runs and not self._shows_runs
        return [Ping([chat_calls.served_delta(run) for run in part.runs])] if shown else []

    def _served(self) -> list[ServerToolCall] | UnsetType:
        return UNSET if self._shows_runs else chat_calls.served(self._runs) or UNSET

    def _message(self, started: Started) -> Message:
        return Message(self._id, "message", "assistant", self._model, [], None, None, self._usage(started))

    def _usage(self, started: Started) -> MessagesUsage:
        """Up to now. What is kept of a prompt costs nothing to keep, so none of its tokens count as cache creation."""
        count = self._count
        return MessagesUsage(
            input_tokens=started.prompt_tokens - count.cached,
            output_tokens=count.written,
            cache_read_input_tokens=count.cached,
            cache_creation_input_tokens=0,
            output_tokens_details=MessagesTokensDetails(count.reasoned),
        )


def _thoughts(asked: MessagesRequest) -> Thoughts:
    if not thinks(asked):
        return "hidden"
    return "omitted" if asked.thinking is not None and asked.thinking.display == "omitted" else "shown"


ROUTES = [messages, count_tokens]
