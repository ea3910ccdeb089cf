"""uvicorn's protocol with deadlines: what is read, answered and waited for, and when a connection ends.

Where nothing goes wrong it costs one timer a connection and no task: what has to be watched is looked at when data
come, or when the one timer runs out.
"""

import asyncio
import select
from collections.abc import Container
from enum import Enum
from typing import Any, ClassVar

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from server.api.request_state import GIVEN_UP, IN_VAIN
from server.connection import head
from server.connection.bounds import FRAMING_A_BYTE, FRAMING_BYTES, HEAD_BYTES, HEADERS, SLOWEST, Bounds, body_left
from server.connection.crowd import Crowd
from server.connection.refusal import Refused, answer, fault
from server.errors import HearthError, InvalidHTTP, RequestTimeout, TooManyConnections

_LINGER_SECONDS = 2.0
_DRAINED_BYTES = 64 * 1024
"""How much of a body may still come after its answer, so that the connection serves the next request too."""
_LOOK_SECONDS = 0.25
_LOOKS_BEFORE_ASKING = 4


class Phase(Enum):
    """What is read of the request at hand."""

    BETWEEN = "nothing"
    HEAD = "its head"
    BODY = "its body"


class Connection(HttpToolsProtocol):
    """One connection; `limited` makes the class for one server."""

    bounds: ClassVar[Bounds] = Bounds()
    crowd: ClassVar[Crowd] = Crowd()
    sockets: ClassVar[Container[str]] = frozenset()
    """The paths that speak WebSocket."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.timeout_keep_alive = self.bounds.keep_alive  # type: ignore[assignment]  # only ever given to call_later
        self._phase = Phase.BETWEEN
        self._timer: asyncio.TimerHandle | None = None
        self._timed: Phase | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None
        self._task: asyncio.Task[None] | None = None
        self._persists = True
        self._upgrading = False
        self._deaf = False
        self._half_closed = False
        self._looks = 0
        self._head = self._wire = self._body = self._unsent = 0
        self._length: int | None = None
        self._body_since = self._heard = 0.0

    # ---- the transport's calls ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(Phase.BETWEEN)
        if len(self.connections) > self.bounds.connections and not self.crowd.make_room():
            self._refuse(TooManyConnections("All connections of this server are busy.", retry_after=1))
            return
        self.crowd.is_idle(self)

    def drop(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._unset_keepalive_if_required()
        self._heard = self.loop.time()
        before = self._phase
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(fault(error, data))
            return
        self._after(before, len(data))

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's protocols may say that they stay open
        """The client sends no more. Whoever closed only this direction still gets the answers to what was whole."""
        self._half_closed = True
        running = self._running
        if not self._deaf and self._phase is Phase.BODY:
            self._refuse(InvalidHTTP("The connection ended before the request's body did."))
            return False
        if running is None or running.response_complete:
            return False
        self._last_answer()
        running.message_event.set()  # who waits for the client to leave is told to look whether it has
        self._stop_timer()
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._stop_write_timer()
        self.crowd.forget(self)
        self.pipeline.clear()
        if self._running is not None:
            self._give_up(self._running)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._unsent = self.transport.get_write_buffer_size()
            self._write_timer = self.loop.call_later(self.bounds.write, self._unread)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    # ---- reading ------------------------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._hand_over()
                return
            self._feed(self._without_upgrade() + data[upgrade.args[0] :])

    def _hand_over(self) -> None:
        self._stop_timer()
        self.crowd.forget(self)
        self._deaf = True
        self.handle_websocket_upgrade()

    def _without_upgrade(self) -> bytes:
        """The head of a request for another protocol, as one for HTTP/1.1: a server may decline, Java's client asks.

        The parser takes the rest of such a connection for the other protocol's; so it begins anew.
        """
        version = self.parser.get_http_version()
        lines = [self.parser.get_method() + b" " + self.url + f" HTTP/{version}\r\n".encode()]
        lines += [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._phase = Phase.BETWEEN
        self._upgrading = False
        return b"".join([*lines, b"\r\n"])

    def _after(self, before: Phase, size: int) -> None:
        """What to wait for next, once `size` bytes have been read."""
        match self._phase:
            case Phase.HEAD:
                self._head = self._head + size if before is Phase.HEAD else 0
                if self._head > HEAD_BYTES:
                    self._refuse(head.too_long(self.headers))
                    return
                self._expect(Phase.HEAD)
            case Phase.BODY:
                self._wire = self._wire + size if before is Phase.BODY else 0
                if self._wire > self._body + FRAMING_BYTES + FRAMING_A_BYTE * self._body:
                    self._refuse(InvalidHTTP("The framing of the request's body is many times the body."))
                    return
                self._expect(Phase.BODY)
            case _ if self._running is not None and not self._running.response_complete:
                self._stop_timer()
            case _ if not self._deaf:
                self._expect(Phase.BETWEEN)

    # ---- the parser's calls -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = Phase.HEAD
        self._head = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase is Phase.BODY:  # a trailer; what came after the body could contradict what was decided by then
            return
        self.headers.append((name.lower(), value))
        if len(self.headers) > HEADERS:
            raise Refused(head.too_many())

    def on_headers_complete(self) -> None:
        head.check(self.parser.get_http_version(), self.parser.get_method(), self.url, self.headers)
        self.expect_100_continue = head.expects_continue(self.headers)
        before = self.cycle
        self._wire = self._body = 0
        self._length = head.length(self.headers)
        self._upgrading = self.parser.should_upgrade() and not self._should_upgrade()
        if not self._upgrading:
            super().on_headers_complete()
        self._phase = Phase.BODY
        self._body_since = self._heard
        if self.cycle is not before:
            # An answer that comes before the body is whole must not close at once: the client would lose it.
            self._persists, self.cycle.keep_alive = self.cycle.keep_alive, True
            self.crowd.is_reading(self)

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = Phase.BETWEEN
        if self._upgrading:
            return
        if self.cycle is not None and not self._should_upgrade_now():
            self.cycle.keep_alive = self._persists
            self.crowd.has_read(self)
        super().on_message_complete()

    def _should_upgrade_now(self) -> bool:
        return self.parser.should_upgrade() and self._should_upgrade()

    def _should_upgrade(self) -> bool:
        path = self.url.partition(b"?")[0].decode("latin-1")
        return path in self.sockets and super()._should_upgrade()

    # ---- answering ----------------------------------------------------------------------------------------------

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        persists = self._persists if self._phase is Phase.BODY else cycle.keep_alive
        if cycle.more_body and not self._drains(persists):
            app = _announcing(app, cycle)
        self._task = task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def on_response_complete(self) -> None:
        cycle = self._running
        early = cycle is not None and cycle.more_body and not self._drains(self._persists)
        if early and not self.transport.is_closing():
            self.server_state.total_requests += 1
            self._linger()
            return
        super().on_response_complete()
        if self.transport.is_closing():  # with bytes that nobody may ever read
            self._stop_timer()
            self._timer = self.loop.call_later(self.bounds.write, self.transport.abort)
        elif self._running is cycle:
            self.crowd.is_idle(self)

    def _drains(self, persists: bool) -> bool:
        """Whether what is still to come of the newest request's body is read to its end, though it was answered.

        A client that waits to be told to send it will not, once it has its answer.
        """
        if self._length is None or self.expect_100_continue:
            return False
        return persists and self._length - self._body <= _DRAINED_BYTES

    def shutdown(self) -> None:
        self._persists = False
        super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _refuse(self, error: HearthError) -> None:
        """Answer what is no request, after the answers to those before it, and close."""
        self._deaf = True
        self._stop_timer()
        if self._phase is Phase.BODY and self.cycle is not None and not self._upgrading:
            if self.pipeline:
                self.pipeline.popleft()  # the newest, which will never be whole
            elif self._running is not None:
                self._give_up(self._running)
                if self._running.response_started:
                    self._linger()
                    return
                self._running = None
        if self._running is not None and not self._running.response_complete:
            self._last_answer()
            return
        self.transport.write(answer(error, self.server_state.default_headers))
        self._linger()

    def _last_answer(self) -> None:
        """Close after the newest of the requests that are whole."""
        last = self.pipeline[0][0] if self.pipeline else self._running
        if last is not None:
            last.keep_alive = False

    def _linger(self) -> None:
        """Say goodbye, and drop what still comes: a connection closed over unread data loses its last answer."""
        self._deaf = True
        self.crowd.forget(self)
        self.flow.resume_reading()
        if self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
        else:
            self.transport.write_eof()
        self._stop_timer()
        self._timer = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _give_up(self, cycle: RequestResponseCycle) -> None:
        """Nobody waits for the answer: what works on it is told, and ended where nothing but the answer would be lost.

        A stream hears of it by itself; a request that was not whole yet cannot have done anything.
        """
        cycle.disconnected = True
        cycle.message_event.set()
        state = cycle.scope["state"]
        if self._task is None or cycle.response_started or not (cycle.more_body or state.get(IN_VAIN)):
            return
        state[GIVEN_UP] = True
        self._task.cancel()

    # ---- waiting ------------------------------------------------------------------------------------------------

    def _expect(self, phase: Phase) -> None:
        """Have the one timer watch over `phase`; while it does already, its time goes on."""
        if self._timed is phase and self._timer is not None:
            return
        self._stop_timer()
        self._timed = phase
        wait = self.bounds.body if phase is Phase.BODY else self.bounds.header
        self._timer = self.loop.call_later(wait, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _late(self) -> None:
        self._timer = None
        if self._phase is Phase.BODY:
            now = self.loop.time()
            if self.flow.read_paused:  # by this server, while it answers the request before
                self._heard = self._body_since = now
            left = body_left(self.bounds.body, now - self._body_since, now - self._heard, self._body)
            if left > 0:
                self._timer = self.loop.call_later(left, self._late)
                return
        if self._phase is Phase.BETWEEN:
            self.transport.close()  # no word of a request: browsers open connections in advance
            return
        self._refuse(RequestTimeout(f"The request did not arrive in time: {self._phase.value} is missing in part."))

    def _unread(self) -> None:
        """Nothing is written while this timer runs, so what is unsent only gets less: as fast as the client reads."""
        unsent = self.transport.get_write_buffer_size()
        if self._unsent - unsent < SLOWEST * self.bounds.write:
            self.transport.abort()
            return
        self._unsent = unsent
        self._write_timer = self.loop.call_later(self.bounds.write, self._unread)

    def _look(self) -> None:
        """Whether a client that sends no more still reads.

        Nothing tells a client that has left from one that only closed its direction, until something is sent: then the
        machine of the former answers with a reset. A stream sends soon anyway. Ahead of a whole answer the one thing
        that may be sent is 100 Continue, which every HTTP/1.1 client passes over.
        """
        if self._running is None or self._running.response_complete or self.transport.is_closing():
            return
        if _reset(self.transport.get_extra_info("socket").fileno()):
            self.transport.abort()
            return
        self._looks += 1
        asks = not self._running.response_started and self._running.scope["http_version"] == "1.1"
        if self._looks == _LOOKS_BEFORE_ASKING and asks:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._timer = self.loop.call_later(_LOOK_SECONDS, self._look)


def limited(bounds: Bounds, sockets: Container[str] = frozenset()) -> type[Connection]:
    """The protocol of one server. `sockets` are the paths that speak WebSocket."""
    return type("Limited", (Connection,), {"bounds": bounds, "crowd": Crowd(), "sockets": sockets})


def _announcing(app: ASGI3Application, cycle: RequestResponseCycle) -> ASGI3Application:
    """`app`, whose answer says that the connection closes where it comes before the body has: the client would send
    its next request on it. It closes after the answer was read, see `Connection._linger`."""

    async def announcing(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            if message["type"] == "http.response.start" and cycle.more_body:
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                await send({**message, "headers": headers})
                cycle.keep_alive = True  # which the header has ended: the cycle would close at once
                return
            await send(message)

        await app(scope, receive, told)

    return announcing


def _reset(descriptor: int) -> bool:
    """Whether the other side has refused what was sent to it."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors and hang-ups are told unasked
    return bool(poll.poll(0))
