"""`/v1/responses` over WebSocket: the client sends `response.create`, the events come as messages, one turn at a time.

What the last response came to is remembered by the connection, so that a conversation goes on without being kept.
"""

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import Any, Literal

import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect

from server.api.decode import parse
from server.api.limits import Account
from server.api.responses.answering import begin
from server.api.responses.items import Json
from server.api.responses.routes import kept_of
from server.api.responses.wire import CreateResponse, Response
from server.api.routed import route_of
from server.errors import ConnectionOutworn, HearthError
from server.models.caller import CALLER
from server.models.route import ROUTE
from server.runtime import Runtime

log = logging.getLogger(__name__)

LONGEST_SECONDS = 60 * 60.0
"""How long a connection may live, as the specification says."""

_json = msgspec.json.Encoder()


class _Create(CreateResponse, kw_only=True):
    """What a client sends: the body of a request, and its type. With `generate` false the input is only read, so that
    the next answer, which continues this one, comes sooner.
    """

    type: Literal["response.create"]
    generate: bool | None = None


@websocket(["/v1/responses", "/responses"], opt={"needs": "infer"})
async def respond(socket: "WebSocket[Any, Any, Any]") -> None:
    await socket.accept()
    try:
        await Connection(socket).serve()
    except Exception:
        # The framework tells the client and, of WebSockets, nobody else.
        log.exception("unexpected fault in a connection to %s", socket.url.path)
        raise


class Connection:
    """One client. Its messages are answered in order; the next one is read, and its leaving heard, meanwhile."""

    def __init__(self, socket: "WebSocket[Any, Any, Any]") -> None:
        self._socket = socket
        self._last: tuple[str, list[Json]] | None = None

    async def serve(self) -> None:
        """Until the client leaves, or the connection is as old as it may get."""
        until = asyncio.get_running_loop().time() + LONGEST_SECONDS
        coming = asyncio.create_task(self._socket.receive_data("text"))
        answering: asyncio.Task[None] | None = None
        try:
            while True:
                async with asyncio.timeout_at(until):
                    message = await asyncio.shield(coming)
                coming = asyncio.create_task(self._socket.receive_data("text"))
                answering = asyncio.create_task(self._answer(message))
                await asyncio.wait((coming, answering), return_when=asyncio.FIRST_COMPLETED)
                if coming.done() and coming.exception() is not None:
                    break
                await answering
        except TimeoutError:
            with suppress(WebSocketDisconnect):
                await self._tell(ConnectionOutworn("This connection is 60 minutes old; open a new one."))
                await self._socket.close()
        except WebSocketDisconnect:
            log.debug("a client has left its connection")
        finally:
            tasks = [task for task in (coming, answering) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, message: str) -> None:
        """One turn. Where it fails, what it continued is forgotten: it may be what is wrong."""
        previous = None
        try:
            ROUTE.set(route_of(self._socket.headers))
            request, _ = parse(message.encode(), _Create)
            previous = request.previous_response_id
            caller = CALLER.get()
            if isinstance(caller, Account):
                caller.admit()
            response = await self._respond(request)
            if response.status == "failed":
                self._forget(previous)
        except HearthError as error:
            self._forget(previous)
            await self._tell(error)

    async def _respond(self, request: _Create) -> Response:
        runtime: Runtime = self._socket.app.state["runtime"]
        kept = kept_of(runtime)

        async def before(name: str) -> list[Json]:
            last = self._last
            return last[1] if last is not None and last[0] == name else await kept.conversation(name)

        answering = await begin(runtime, request, kept, before, silent=request.generate is False)
        async with aclosing(answering.events()) as steps:
            async for step in steps:
                for event in step:
                    await self._send(event)
        if answering.response.status != "failed":
            self._last = answering.response.id, [*answering.earlier, *answering.items]
        return answering.response

    def _forget(self, name: str | None) -> None:
        if self._last is not None and self._last[0] == name:
            self._last = None

    async def _tell(self, error: HearthError) -> None:
        """A fault outside of any response."""
        told = {"type": error.type, "code": error.code, "message": error.message, "param": error.param}
        await self._send({"type": "error", "status": error.status, "error": told})

    async def _send(self, value: object) -> None:
        """Raises WebSocketDisconnect once the client has left, which the server tells as an OSError."""
        try:
            await self._socket.send_text(_json.encode(value).decode())
        except OSError as error:
            raise WebSocketDisconnect(detail="the client has left") from error
