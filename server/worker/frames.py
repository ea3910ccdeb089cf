"""Length-prefixed msgpack frames between gateway and worker: four bytes of big-endian length, then one message."""

from collections.abc import Iterator

import msgspec

MAX_FRAME = 256 * 2**20
_PREFIX = 4


class FrameError(Exception):
    """The other side does not speak this protocol."""


class Submit(msgspec.Struct, array_like=True, frozen=True, tag=1):
    call: int
    body: bytes


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag=2):
    call: int


class Ping(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Asks for a Pong. Answered beside the owner thread, so it comes back even while a step is long."""


class Close(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Finish: no call follows."""


class Progress(msgspec.Struct, array_like=True, frozen=True, tag=5):
    text: str


class Ready(msgspec.Struct, array_like=True, frozen=True, tag=6):
    body: bytes


class Items(msgspec.Struct, array_like=True, frozen=True, tag=7):
    """Everything one step brought, for all calls: (call, body, last)."""

    items: list[tuple[int, bytes, bool]]


class Pong(msgspec.Struct, array_like=True, frozen=True, tag=8):
    """`busy_for` is how many seconds the owner thread has been inside the service; 0 when it is not."""

    busy_for: float


class Broken(msgspec.Struct, array_like=True, frozen=True, tag=9):
    """The last frame of a process that gives up, and why.

    `hopeless` where the next one would fail alike, `passing` where that lies with something that may come back.
    """

    reason: str
    hopeless: bool = False
    passing: bool = False


class Logged(msgspec.Struct, array_like=True, frozen=True, tag=10):
    """A warning, or worse, of the service: `level` is one of `logging`."""

    level: int
    text: str


ToWorker = Submit | Cancel | Ping | Close
FromWorker = Progress | Ready | Items | Pong | Broken | Logged

_encoder = msgspec.msgpack.Encoder()
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """One whole frame. Raises FrameError where it would be larger than the other side takes."""
    buffer = bytearray(_PREFIX)
    _encoder.encode_into(message, buffer, _PREFIX)
    length = len(buffer) - _PREFIX
    if length > MAX_FRAME:
        raise FrameError(f"a frame of {length} bytes is larger than {MAX_FRAME}")
    buffer[:_PREFIX] = length.to_bytes(_PREFIX, "big")
    return bytes(buffer)


class FrameReader:
    """Bytes in any pieces to whole message bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises FrameError where a length cannot be right."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _PREFIX:
            length = int.from_bytes(self._buffer[start : start + _PREFIX], "big")
            if length > MAX_FRAME:
                raise FrameError(f"a frame announces {length} bytes")
            end = start + _PREFIX + length
            if len(self._buffer) < end:
                break
            yield bytes(memoryview(self._buffer)[start + _PREFIX : end])
            start = end
        del self._buffer[:start]
