"""Server-sent events out of bytes as they arrive; knows nothing of what they hold.

Not the HTTP client's lines: they end at every line separator of Unicode, which JSON may hold as it is.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import NamedTuple


class Sent(NamedTuple):
    """One event: its name, empty where it has none, and its data."""

    name: str
    data: bytes


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[list[Sent], None]:
    """The events of a stream, those that arrived together in one list, which is never empty.

    One that the end of the stream cuts short comes too, for whoever reads its data to notice.
    """
    reader = _Reader()
    async for chunk in chunks:
        if found := reader.feed(chunk):
            yield found
    if found := reader.feed(b"\n\n"):
        yield found


class _Reader:
    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Sent]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = []
        for line in lines:
            line = line.removesuffix(b"\r")
            field, _, value = line.partition(b":")
            if not line:
                if self._data:
                    found.append(Sent(self._name, b"\n".join(self._data)))
                self._name, self._data = "", []
            elif field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.strip().decode("utf-8", "replace")
        return found
