"""Server-sent events: keep-alives while a model thinks, faults in-band, work ended when its reader leaves."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from litestar.types import Receive, Scope, Send

from server.api import faults
from server.api.reply import Direct
from server.errors import HearthError

log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"

# Proxies must neither store nor hold back a stream.
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


@dataclass(frozen=True)
class Framing:
    """How one wire streams: its media type, a sign of life between events (empty where it has none), and a fault."""

    media_type: str
    keep_alive: bytes
    fault: Callable[[HearthError], bytes]


OPENAI = Framing("text/event-stream; charset=utf-8", b": keep-alive\n\n", lambda error: event(faults.body(error)))


class EventStream(Direct):
    """Ready-made events as they come, OpenAI's where no other `framing` is given.

    Not the framework's stream: a keep-alive must be sent while the next chunk is awaited, and a task per chunk would
    cost more than the chunk does.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], headers: dict[str, str], framing: Framing = OPENAI) -> None:
        super().__init__(200, framing.media_type, _HEADERS | headers)
        self._chunks = chunks
        self._framing = framing
        self._spoke = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        sending = asyncio.create_task(self._send(send))
        every = scope["litestar_app"].state["runtime"].recipe.server.keep_alive.total_seconds()
        others = [asyncio.create_task(self._gone(receive, send)), asyncio.create_task(self._keep_alive(send, every))]
        try:
            await asyncio.wait((sending, *others), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, *others):
                task.cancel()
            ended, *_ = await asyncio.gather(sending, *others, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended
        if ended is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send) -> None:
        async with aclosing(self._chunks):
            try:
                async for chunk in self._chunks:
                    self._spoke = True
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except HearthError as error:
                log.warning("a stream ended with %s: %s", error.code, error.message)
                await send({"type": "http.response.body", "body": self._framing.fault(error), "more_body": True})

    async def _keep_alive(self, send: Send, every: float) -> None:
        while True:
            self._spoke = False
            await asyncio.sleep(every)
            if not self._spoke:
                await self._sign_of_life(send)

    async def _gone(self, receive: Receive, send: Send) -> None:
        """Returns when the client has left.

        An empty part of the body after its end means that the client sends no more; whether it still reads is only
        found by sending it something.
        """
        while (await receive())["type"] != "http.disconnect":
            await self._sign_of_life(send)

    async def _sign_of_life(self, send: Send) -> None:
        if self._framing.keep_alive:
            await send({"type": "http.response.body", "body": self._framing.keep_alive, "more_body": True})
