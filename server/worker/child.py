"""The worker process: `python -m server.worker.child FD MODULE:CLASS`, one service behind one socket."""

import asyncio
import ctypes
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from server.worker.frames import (
    Broken,
    Cancel,
    Close,
    FrameReader,
    FromWorker,
    Items,
    Logged,
    Ping,
    Pong,
    Progress,
    Ready,
    Submit,
    ToWorker,
    encode,
    to_worker,
)
from server.worker.service import AsyncService, Away, Item, Service

_READ = 2**18
_PR_SET_PDEATHSIG = 1


class Link:
    """The socket: any thread may send, one thread reads. Remembers since when the owner is inside the service."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.busy_since: float | None = None
        self.commands: queue.SimpleQueue[ToWorker] = queue.SimpleQueue()
        self.deliver: Callable[[ToWorker], object] = self.commands.put
        """What the reading thread does with a command."""

    def send(self, message: FromWorker) -> None:
        frame = encode(message)
        with self._sending:
            self._connection.sendall(frame)

    def read(self) -> None:
        """Read until the gateway is gone, answering pings beside the owner; then end the process.

        Ends it hard: the owner may be deep inside native code, and nobody is left to hear of it.
        """
        reader = FrameReader()
        try:
            while data := self._connection.recv(_READ):
                for body in reader.feed(data):
                    self._take(to_worker.decode(body))
        except OSError:
            pass
        os._exit(0)

    def _take(self, message: ToWorker) -> None:
        if isinstance(message, Ping):
            since = self.busy_since
            self.send(Pong(0.0 if since is None else time.monotonic() - since))
        else:
            self.deliver(message)


class _Telling(logging.Handler):
    """What the service warns of stands in the gateway's log: nobody reads this process's own."""

    def __init__(self, link: Link) -> None:
        super().__init__(logging.WARNING)
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the gateway is gone, and so is this process in a moment
            self._link.send(Logged(record.levelno, self.format(record)))


class Owner:
    """The main thread: the only one that touches the service."""

    def __init__(self, service: Service, link: Link) -> None:
        self._service = service
        self._link = link
        self.opened = False

    def run(self, config: bytes) -> None:
        self._link.busy_since = time.monotonic()
        ready = self._service.open(config, self._progress)
        self._link.busy_since = None
        self.opened = True
        self._link.send(Ready(ready))
        while self._turn():
            pass
        self._service.close()

    def _progress(self, text: str) -> None:
        self._link.busy_since = time.monotonic()
        self._link.send(Progress(text))

    def _turn(self) -> bool:
        """Take what was asked, then do one step; False when it is time to end."""
        items: list[Item] = []
        try:
            while True:
                command = self._link.commands.get(block=not self._service.busy and not items)
                match command:
                    case Submit(call, body):
                        items += self._service.submit(call, body)
                    case Cancel(call):
                        self._service.cancel(call)
                    case Close():
                        return False
        except queue.Empty:
            pass
        self._send(items)
        if self._service.busy:
            self._link.busy_since = time.monotonic()
            self._send(self._service.step())
            self._link.busy_since = None
        return True

    def _send(self, items: list[Item]) -> None:
        if items:
            self._link.send(Items([(item.call, item.body, item.last) for item in items]))


class LoopOwner:
    """The main thread of an AsyncService: an event loop, one task for each call."""

    def __init__(self, service: AsyncService, link: Link) -> None:
        self._service = service
        self._link = link
        self._calls: dict[int, asyncio.Task[None]] = {}
        self.opened = False

    def run(self, config: bytes) -> None:
        asyncio.run(self._serve(config))

    async def _serve(self, config: bytes) -> None:
        loop = asyncio.get_running_loop()
        closing = asyncio.Event()
        self._link.deliver = lambda command: loop.call_soon_threadsafe(self._take, command, closing)
        while not self._link.commands.empty():
            self._take(self._link.commands.get(), closing)
        try:
            self._link.busy_since = time.monotonic()
            ready = await self._service.start(config, self._progress)
            self._link.busy_since = None
            self.opened = True
            self._link.send(Ready(ready))
            await self._until_broken(closing)
        finally:
            await self._service.close()

    async def _until_broken(self, closing: asyncio.Event) -> None:
        """Until it is told to close; raises what breaks the service or one of its calls."""
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ends: set[asyncio.Future[Any]] = {self._broken}
        ends |= {asyncio.create_task(closing.wait()), asyncio.create_task(self._service.lasting())}
        done, left = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for future in (*left, *self._calls.values()):
            future.cancel()
        await asyncio.gather(*self._calls.values(), return_exceptions=True)
        for future in done:
            future.result()

    def _progress(self, text: str) -> None:
        self._link.busy_since = time.monotonic()
        self._link.send(Progress(text))

    def _take(self, command: ToWorker, closing: asyncio.Event) -> None:
        match command:
            case Submit(call, body):
                task = self._calls[call] = asyncio.create_task(self._call(call, body))
                task.add_done_callback(partial(self._ended, call))
            case Cancel(call) if call in self._calls:
                self._calls[call].cancel()
            case Close():
                closing.set()

    async def _call(self, call: int, body: bytes) -> None:
        last = await self._service.call(body, lambda early: self._link.send(Items([(call, early, False)])))
        self._link.send(Items([(call, last, True)]))

    def _ended(self, call: int, task: asyncio.Task[None]) -> None:
        del self._calls[call]
        if not task.cancelled() and (error := task.exception()) is not None and not self._broken.done():
            self._broken.set_exception(error)


def main(argv: list[str]) -> int:
    _end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = Link(socket.socket(fileno=int(argv[1])))
    logging.getLogger().addHandler(_Telling(link))
    config = sys.stdin.buffer.read()
    module, _, name = argv[2].partition(":")
    threading.Thread(target=link.read, name="reader", daemon=True).start()
    owner: Owner | LoopOwner | None = None
    try:
        service: Service | AsyncService = getattr(importlib.import_module(module), name)()
        owner = LoopOwner(service, link) if isinstance(service, AsyncService) else Owner(service, link)
        owner.run(config)
    except Exception as error:  # noqa: BLE001  # the outermost loop of this process: it reports what broke it and ends
        traceback.print_exc()
        opening = owner is not None and not owner.opened
        hopeless, passing = opening and isinstance(error, ValueError), opening and isinstance(error, Away)
        link.send(Broken(_reason(error), hopeless=hopeless, passing=passing))
        return 1
    return 0


def _reason(error: Exception) -> str:
    text = str(error).strip()
    plain = isinstance(error, OSError | ValueError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}: {text}"


def _end_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, even while native code holds the interpreter."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(0)


if __name__ == "__main__":
    code = main(sys.argv)
    sys.stdout.flush()
    sys.stderr.flush()
    # Native runtimes may hang or crash in their exit handlers; everything that matters was closed above.
    os._exit(code)
