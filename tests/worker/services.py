"""Services that misbehave in every way a worker must survive; each body is a command."""

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable

from server.worker import Away, Item


class Counting:
    """`count N`: N items over N steps. `big N`: one item of N bytes. `hang`, `exit`, `raise`: what they say."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self.cancelled = 0

    def open(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        progress("opening")
        print("said on standard output")
        logging.getLogger("some.engine").warning("the %s one is not used", "fast")
        logging.getLogger("some.engine").info("nobody needs this")
        if config == b"fail":
            raise FileNotFoundError("weights.bin: no such file")
        if config == b"wrong":
            raise ValueError("weights.gguf: cut off")
        if config.startswith(b"away "):
            with open(config[5:], "a+b") as tried:  # noqa: PTH123 - appended to by one process after another
                tried.write(b".")
                if tried.tell() <= 7:
                    raise Away("the shop is shut")
        if config == b"slow":
            time.sleep(60)
        return b"ready:" + config

    def submit(self, call: int, body: bytes) -> list[Item]:
        command, _, number = body.partition(b" ")
        match command:
            case b"count":
                self._left[call] = int(number)
                self._sent[call] = 0
                return []
            case b"big":
                return [Item(call, b"x" * int(number), True)]
            case b"length":
                return [Item(call, str(len(number)).encode(), True)]
            case b"cancelled":
                return [Item(call, str(self.cancelled).encode(), True)]
            case b"environment":
                return [Item(call, os.environ.get(number.decode(), "").encode(), True)]
            case b"hang":
                ctypes.PyDLL(None).usleep(60_000_000)  # holds the interpreter's lock, as native code can
            case b"exit":
                print("x" * int(number or 0), end="", flush=True)
                os._exit(7)
            case b"kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case b"raise":
                raise RuntimeError("a bug")
        return []

    def step(self) -> list[Item]:
        items = []
        for call in list(self._left):
            self._sent[call] += 1
            last = self._sent[call] == self._left[call]
            items.append(Item(call, str(self._sent[call]).encode(), last))
            if last:
                self.cancel(call)
                self.cancelled -= 1
        return items

    def cancel(self, call: int) -> None:
        self.cancelled += self._left.pop(call, None) is not None

    @property
    def busy(self) -> bool:
        return bool(self._left)

    def close(self) -> None:
        self._left.clear()


class Waiting:
    """An AsyncService. `early N`: N items and a last. `wait`: until it is cancelled, which `seen` counts.

    `environment NAME`: what it sees. `raise` breaks a call, `over` the service.
    """

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._cancelled = 0

    async def start(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        if config == b"wrong":
            raise ValueError("there is no such server")
        return b"ready:" + config

    async def call(self, body: bytes, send: Callable[[bytes], None]) -> bytes:
        command, _, rest = body.partition(b" ")
        match command:
            case b"early":
                for number in range(int(rest)):
                    send(str(number).encode())
            case b"wait":
                send(b"begun")
                try:
                    await asyncio.Event().wait()
                finally:
                    self._cancelled += 1
            case b"seen":
                return str(self._cancelled).encode()
            case b"environment":
                return os.environ.get(rest.decode(), "none").encode()
            case b"raise":
                raise RuntimeError("a bug in a call")
            case b"over":
                self._over.set()
        return b"last"

    async def lasting(self) -> None:
        await self._over.wait()
        raise RuntimeError("the server has gone")

    async def close(self) -> None:
        self._over.set()
