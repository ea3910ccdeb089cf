"""`hearth mcp`: the Model Context Protocol over standard input and output, of the running server or of a runtime."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Literal

import httpx
import msgspec

from config import Recipe
from server.answered import fault
from server.api.mcp.dialogue import Dialogue
from server.api.mcp.wire import INTERNAL_ERROR, Id, RpcFailure, RpcFault
from server.runtime import Runtime

_LONGEST_CALL = 3600.0
_CONNECT_SECONDS = 2.0

Hear = Callable[[bytes], Awaitable[bytes | None]]
"""The answer to one line of a client's, None where none is due."""


def offer(recipe: Recipe, key: str | None) -> int:
    """Speak until standard input ends; returns the exit code. Nothing but the protocol goes to standard output."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    asyncio.run(_offer(recipe, key))
    return 0


async def _offer(recipe: Recipe, key: str | None) -> None:
    async with _hearing(recipe, key) as hear, asyncio.TaskGroup() as tasks:
        while line := await asyncio.to_thread(sys.stdin.buffer.readline):
            if line.strip():
                tasks.create_task(_answer(hear, line))


async def _answer(hear: Hear, line: bytes) -> None:
    if (answer := await hear(line)) is not None:
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


@asynccontextmanager
async def _hearing(recipe: Recipe, key: str | None) -> AsyncIterator[Hear]:
    """The running server where there is one, else a runtime of the recipe for as long as this client stays."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    timeout = httpx.Timeout(_LONGEST_CALL, connect=_CONNECT_SECONDS)
    url = recipe.server.listen.url
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False) as client:
        try:
            await client.get("/healthz")
        except httpx.ConnectError:
            pass
        else:
            yield _Carried(client).hear
            return
    print(f"No server is running on {url}; loading the recipe for this client.", file=sys.stderr)
    async with Runtime.build(recipe) as runtime:
        dialogue = Dialogue()

        async def hear(line: bytes) -> bytes | None:
            answer = await dialogue.hear(runtime, line)
            return None if answer is None else msgspec.json.encode(answer)

        yield hear


class _Carried:
    """Carries lines to the running server, which answers them with the scopes of the key."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._session: dict[str, str] = {}

    async def hear(self, line: bytes) -> bytes | None:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        try:
            reply = await self._client.post("/mcp", content=line.strip(), headers=headers | self._session)
        except httpx.HTTPError as error:
            return self._failed(line, f"The server cannot be reached: {error or type(error).__name__}.")
        if session := reply.headers.get("mcp-session-id"):
            self._session = {"mcp-session-id": session}
        if reply.status_code == httpx.codes.OK and _speaks(reply.content):
            return reply.content
        if reply.is_success and not reply.content:
            return None
        return self._failed(line, str(fault(reply)))

    def _failed(self, line: bytes, why: str) -> bytes | None:
        """A fault for whoever waits for an answer to `line`."""
        try:
            told = msgspec.json.decode(line)
        except msgspec.DecodeError:
            told = None
        asked: Id | None = told.get("id") if isinstance(told, dict) else None
        if asked is None:
            print(why, file=sys.stderr)
            return None
        return msgspec.json.encode(RpcFailure(asked, RpcFault(INTERNAL_ERROR, why)))


class _Line(msgspec.Struct):
    jsonrpc: Literal["2.0"]


def _speaks(answer: bytes) -> bool:
    """Whether it is of the protocol: another program may be listening there, and its words are not for the client."""
    try:
        return bool(msgspec.json.decode(answer, type=_Line | list[_Line]))
    except msgspec.MsgspecError:
        return False
