"""Services that misbehave in every way a worker must survive; each body is a command."""

import ctypes
import os
import signal
import time
from collections.abc import Callable

from server.worker import Item


class Counting:
    """`count N`: N items over N steps. `big N`: one item of N bytes. `hang`, `exit`, `raise`: what they say."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}
        self._sent: dict[int, int] = {}
        self.cancelled = 0

    def open(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        progress("opening")
        print("said on standard output")
        if config == b"fail":
            raise FileNotFoundError("weights.bin: no such file")
        if config == b"wrong":
            raise ValueError("weights.gguf: cut off")
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
