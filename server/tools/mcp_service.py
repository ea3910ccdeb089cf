"""What the process beside an MCP server runs: the official client, one session, as long as that lasts.

The client is in a process of its own because importing it takes a second of computing, during which the gateway would
stall every stream, and because what a foreign server sends is read where a fault costs nothing else.
"""

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import httpx2
import msgspec
from mcp import Client, MCPError, StdioServerParameters, types
from mcp.client._transport import TransportStreams
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError, SubscriptionLost
from mcp.shared._httpx_utils import create_mcp_http_client

from server.tools.mcp_config import BEGUN, McpAsked, McpConfig, McpOffered
from server.tools.plugin import told
from server.tools.result import Result, cut

log = logging.getLogger(__name__)

_MOST_PAGES = 100
_ALIVE_SECONDS = 10.0
"""How long a server that was told to cancel has to answer anything at all."""
_CLOSE_SECONDS = 8.0
_LISTEN_AGAIN_SECONDS = 2.0


class McpService:
    """An AsyncService. Its process is as lasting as one session: it ends with that, and is started again."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._why = "the connection ended"
        self._changed = asyncio.Event()
        self._session: asyncio.Task[None] | None = None
        self._beside: set[asyncio.Task[None]] = set()

    async def start(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
        self._config = msgspec.json.decode(config, type=McpConfig)
        connected = asyncio.Event()
        # One task enters and leaves the session, as its cancel scopes demand.
        self._session = asyncio.create_task(self._connected(connected))
        waiting = asyncio.create_task(connected.wait())
        await asyncio.wait({self._session, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._session.done():
            raise _reason(self._session)
        return _encoded(self._offered)

    async def call(self, body: bytes, send: Callable[[bytes], None]) -> bytes:
        asked = msgspec.json.decode(body, type=McpAsked)
        if asked.tool is None:
            return await self._watch(send)
        if self._over.is_set():
            await asyncio.Future()  # until the process ends: the next one is asked again
        send(BEGUN)
        try:
            outcome = await self._called(asked.tool, asked.arguments)
        except asyncio.CancelledError:
            self._aside(self._still_answers())
            raise
        return msgspec.json.encode(_within(outcome, self._config.output))

    async def lasting(self) -> None:
        assert self._session is not None, "it is ready, so it was started"
        await asyncio.wait({self._session})
        raise _reason(self._session, self._why)

    async def close(self) -> None:
        self._over.set()
        if self._session is not None:
            await asyncio.wait({self._session}, timeout=_CLOSE_SECONDS)

    # ---- the session ----------------------------------------------------------------------------------------------

    async def _connected(self, connected: asyncio.Event) -> None:
        transport = self._by_url() if self._config.url else self._by_command()
        client = Client(
            transport,
            message_handler=self._noticed,
            client_info=types.Implementation(name="hearth", version=version("hearth")),
        )
        async with client as self._client:
            self._offered = await self._listed()
            self._aside(self._listening())
            connected.set()
            await self._over.wait()
            for task in self._beside:
                task.cancel()

    @asynccontextmanager
    async def _by_command(self) -> AsyncIterator[TransportStreams]:
        told_so = self._config
        launcher = str(Path(__file__).parent / "launched.py")
        server = StdioServerParameters(
            command=sys.executable,
            args=["-I", launcher, str(told_so.memory), _program(told_so), *told_so.command[1:]],
            env=told_so.environment,
            cwd=told_so.folder,
            encoding_error_handler="replace",  # what is no message is passed over, whatever its bytes
        )
        async with _told_of_end(stdio_client(server, sys.stderr), self._ended) as streams:
            yield streams

    @asynccontextmanager
    async def _by_url(self) -> AsyncIterator[TransportStreams]:
        http = create_mcp_http_client(headers=dict(self._config.headers))
        async with http, streamable_http_client(self._config.url, http_client=http) as streams:
            yield streams

    def _ended(self) -> None:
        self._break("the server closed its output")

    def _break(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            self._over.set()

    def _aside(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    # ---- what it offers -------------------------------------------------------------------------------------------

    async def _listed(self) -> list[McpOffered]:
        if self._client.server_capabilities.tools is None:
            raise ValueError("the server offers no tools")
        found: list[McpOffered] = []
        cursor: str | None = None
        for _ in range(_MOST_PAGES):
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [McpOffered(each.name, each.description or "", dict(each.input_schema)) for each in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                return found
        raise ValueError(f"the server's list of tools has more than {_MOST_PAGES} pages")

    async def _noticed(self, message: object) -> None:
        """Servers of before 2026-07-28 tell of changes unasked; what is no message arrives here as an exception."""
        if isinstance(message, types.ToolListChangedNotification):
            self._aside(self._refreshed())

    async def _listening(self) -> None:
        """Later ones tell whoever listens."""
        while True:
            try:
                async with self._client.listen(tools_list_changed=True) as events:
                    async for _ in events:
                        await self._refreshed()
            except ListenNotSupportedError:
                return
            except (MCPError, SubscriptionLost, TimeoutError) as error:
                log.info("listening again: %s", error)
            await asyncio.sleep(_LISTEN_AGAIN_SECONDS)
            await self._refreshed()  # nothing is told twice

    async def _refreshed(self) -> None:
        try:
            offered = await self._listed()
        except MCPError as error:
            self._break(f"it did not list its tools: {error}")
            return
        if offered != self._offered:
            self._offered = offered
            self._changed.set()
            self._changed = asyncio.Event()

    async def _watch(self, send: Callable[[bytes], None]) -> bytes:
        while True:
            changed = self._changed
            send(_encoded(self._offered))
            await changed.wait()

    # ---- one call -------------------------------------------------------------------------------------------------

    async def _called(self, tool: str, arguments: dict[str, Any]) -> Result:
        try:
            return _result(await self._client.call_tool(tool, arguments))
        except MCPError as error:
            if self._config.url and error.code in (types.CONNECTION_CLOSED, types.INVALID_REQUEST):
                self._break(str(error))  # such as a server that was started again and forgot the session
            ended = error.code == types.CONNECTION_CLOSED
            return Result(f"The server ended without an answer ({error})." if ended else str(error), error=True)
        except (RuntimeError, ValueError) as error:  # a result that is not as the server's own schema says
            return Result(told(error), error=True)

    async def _still_answers(self) -> None:
        """After a call was cancelled: a server that hangs would hang every later call too."""
        try:
            async with asyncio.timeout(_ALIVE_SECONDS):
                await self._listed()
        except (MCPError, ValueError, TimeoutError):
            self._break(f"it gave no answer for {_ALIVE_SECONDS:g} s after a call was cancelled")


@asynccontextmanager
async def _told_of_end(
    transport: AbstractAsyncContextManager[TransportStreams], ended: Callable[[], None]
) -> AsyncIterator[TransportStreams]:
    """`transport`, and `ended` is called as soon as nothing more can be read."""
    async with transport as (read, write), anyio.create_task_group() as group:
        sending, receiving = anyio.create_memory_object_stream[Any](0)

        async def carry() -> None:
            async with sending:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    async for message in read:
                        await sending.send(message)
            ended()

        group.start_soon(carry)
        yield receiving, write
        group.cancel_scope.cancel()


def _program(config: McpConfig) -> str:
    """Where the program is. Raises ValueError: trying again is in vain."""
    name = config.command[0]
    found = shutil.which(str(Path(config.folder) / name) if "/" in name else name, path=config.environment.get("PATH"))
    if found is None:
        raise ValueError(f"the program {name} is not there, or cannot be run")
    return found


def _reason(session: asyncio.Task[None], otherwise: str = "the connection ended") -> Exception:
    """Why a session ended, in one sentence; ValueError where another try would end the same."""
    error = None if session.cancelled() else session.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case None:
            return RuntimeError(otherwise)
        case ValueError():
            return error
        case httpx2.HTTPError() | OSError():
            return ValueError(f"it cannot be reached: {told(error)}")
        case _:
            return RuntimeError(told(error))


def _encoded(offered: list[McpOffered]) -> bytes:
    return msgspec.json.encode(offered)


def _result(outcome: types.CallToolResult) -> Result:
    text = "\n\n".join(map(_text, outcome.content))
    return Result(text, bool(outcome.is_error), outcome.structured_content)


def _within(outcome: Result, longest: int) -> Result:
    """At most `longest` bytes of text, and of structured values, which need not say the same."""
    outcome = cut(outcome, longest)
    size = 0 if outcome.structured is None else len(msgspec.json.encode(outcome.structured))
    if size <= longest:
        return outcome
    return Result(f"{outcome.text}\n[cut: its structured values, {size} of at most {longest} bytes]", outcome.error)


def _text(block: Any) -> str:
    """A part of a result as text; of what is none, what it is."""
    match block:
        case types.TextContent():
            return str(block.text)
        case types.ImageContent() | types.AudioContent():
            return f"[{block.type} of type {block.mime_type}, {len(block.data) * 3 // 4} bytes, which cannot be shown]"
        case types.ResourceLink():
            return f"[{block.name}: {block.uri}]"
        case types.EmbeddedResource(resource=types.TextResourceContents() as held):
            return str(held.text)
        case types.EmbeddedResource():
            return f"[resource {block.resource.uri}, which is no text]"
        case _:
            return f"[part of type {block.type}]"
