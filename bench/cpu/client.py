"""The load of the cpu bench: streamed chat answers over HTTP, timed; the same bytes go to every server."""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple, cast

import msgspec

from bench import client
from bench.table import CannotRun

_PATH = "/v1/chat/completions"
_LAST_CHUNK = b"0\r\n\r\n"


class Answer(NamedTuple):
    """`seconds` from sending the request to the stream's end; the counts are those of the server's `usage`."""

    seconds: float
    prompt_tokens: int
    tokens: int


class Run(NamedTuple):
    """Answers that were asked for at once; `seconds` until the last one ended."""

    seconds: float
    answers: list[Answer]

    @property
    def rate(self) -> float:
        """Tokens written a second, over all of them."""
        return sum(answer.tokens for answer in self.answers) / self.seconds


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Chunk(msgspec.Struct):
    usage: _Usage | None = None


def asked(text: str, tokens: int) -> bytes:
    """A greedy answer of `tokens` tokens, whatever the model would end with."""
    body = {
        "model": "chat",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        # llama.cpp's server tells the template of itself that there is to be no thinking, and the prompts would differ.
        "chat_template_kwargs": {"enable_thinking": True},
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return client.post(_PATH, body).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)


class Stream(asyncio.Protocol):
    """One connection with one request. It only notes what arrives and when, and reads it at the end."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the answer has begun."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: list[bytes] = []
        self._tail = b""
        self._transport: asyncio.Transport | None = None
        self._started = 0.0

    @classmethod
    async def open(cls, port: int) -> "Stream":
        _, stream = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return stream

    def send(self, request: bytes) -> None:
        assert self._transport is not None
        self._started = time.perf_counter()
        self._transport.write(request)

    @property
    def ended(self) -> bool:
        return self._ended.done()

    async def answer(self) -> Answer:
        """The answer, when it has ended. Raises CannotRun where it is a fault."""
        await self._ended
        self.close()
        head, _, body = b"".join(self._pieces).partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or not body.endswith(_LAST_CHUNK):
            raise CannotRun(f"a server refused or broke off:\n{(head + body)[-2000:].decode('utf-8', 'replace')}")
        events = b"".join(client.chunks(body)).split(b"\n\n")
        for event in reversed(events):
            data = event.removeprefix(b"data: ")
            if data.startswith(b"{") and (usage := msgspec.json.decode(data, type=_Chunk).usage) is not None:
                seconds = self.arrivals[-1] - self._started
                return Answer(seconds, usage.prompt_tokens, usage.completion_tokens)
        raise CannotRun(f"a server's stream tells no usage:\n{events[-2:]!r}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # ---- what the event loop calls ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self.arrivals.append(time.perf_counter())
        self._pieces.append(data)
        if b"data: " in data and not self.first.done():
            self.first.set_result(None)
        self._tail = (self._tail + data)[-len(_LAST_CHUNK) :]
        if self._tail == _LAST_CHUNK and not self._ended.done():
            self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in (self.first, self._ended):
            if not waiting.done():
                waiting.set_result(None)


async def together(port: int, requests: Sequence[bytes]) -> Run:
    """All `requests` at once, each over its own connection, which is open before the clock starts."""
    streams = [await Stream.open(port) for _ in requests]
    started = time.perf_counter()
    for stream, request in zip(streams, requests, strict=True):
        stream.send(request)
    answers = [await stream.answer() for stream in streams]
    return Run(max(stream.arrivals[-1] for stream in streams) - started, answers)


async def single(port: int, text: str, tokens: int) -> Answer:
    run = await together(port, [asked(text, tokens)])
    return run.answers[0]
