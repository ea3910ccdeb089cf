"""Server-sent events: keep-alives while a model thinks, faults in-band, work ended when its reader leaves."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from litestar.types import Receive, Scope, Send

from server.api import faults
from server.api.reply import Direct
from server.errors import HearthError

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 15.0
DONE = b"data: [DONE]\n\n"
_COMMENT = b": keep-alive\n\n"

# Proxies must neither store nor hold back a stream.
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class EventStream(Direct):
    """Ready-made events as they come.

    Not the framework's stream: a keep-alive must be sent while the next chunk is awaited, and a task per chunk would
    cost more than the chunk does.
    """

    def __init__(self, chunks: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(200, "text/event-stream; charset=utf-8", _HEADERS | headers)
        self._chunks = chunks
        self._spoke = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        sending = asyncio.create_task(self._send(send))
        others = [asyncio.create_task(_gone(receive)), asyncio.create_task(self._keep_alive(send))]
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
                await send({"type": "http.response.body", "body": event(faults.body(error)), "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            self._spoke = False
            await asyncio.sleep(KEEP_ALIVE_SECONDS)
            if not self._spoke:
                await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
