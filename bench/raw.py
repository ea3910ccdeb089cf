"""The peer of the gateway bench: an ASGI application that answers with ready-made bytes and does nothing else.

`python -m bench.raw PORT FILE`, on the same server, loop and parser as Hearth.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

Headers = list[tuple[bytes, bytes]]


class Script(msgspec.Struct, frozen=True):
    """What it answers: `whole` to a JSON request, `events` one by one to a streaming one.

    To a streaming request for the model `paced` an event is sent every `pause` seconds.
    """

    whole: bytes
    whole_headers: Headers
    events: list[bytes]
    events_headers: Headers
    pause: float


class Raw:
    """A request that mentions a true `stream` is answered with events."""

    def __init__(self, script: Script) -> None:
        self._script = script

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if b'"stream":true' in body:
            await self._stream(send, self._script.pause if b'"paced"' in body else 0.0)
        else:
            await self._answer(send)

    async def _answer(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._script.whole_headers})
        await send({"type": "http.response.body", "body": self._script.whole})

    async def _stream(self, send: Any, pause: float) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._script.events_headers})
        for event in self._script.events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(pause)  # the loop turns even for 0, so that every event is written by itself
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main(argv: list[str]) -> None:
    script = msgspec.msgpack.decode(Path(argv[2]).read_bytes(), type=Script)
    uvicorn.run(
        Raw(script),
        host="127.0.0.1",
        port=int(argv[1]),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )


if __name__ == "__main__":
    main(sys.argv)
