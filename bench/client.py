"""A client that costs little enough to load a server from the same machine: HTTP/1.1 keep-alive on bare streams."""

import asyncio
from typing import NamedTuple, Self

import msgspec

_LIMIT = 2**24
_LAST_CHUNK = b"0\r\n\r\n"


class Answer(NamedTuple):
    """`body` still holds the chunk framing of a chunked answer."""

    head: bytes
    body: bytes


def post(path: str, body: object) -> bytes:
    """One whole request."""
    data = msgspec.json.encode(body)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(data)}"
    return f"{head}\r\n\r\n".encode() + data


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT))

    async def ask(self, request: bytes) -> Answer:
        """Raises RuntimeError for every answer but 200."""
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode("latin-1"))
        length = next((line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), None)
        if length is None:
            return Answer(head, await self._reader.readuntil(_LAST_CHUNK))
        return Answer(head, await self._reader.readexactly(int(length)))

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def load(port: int, request: bytes, connections: int, each: int) -> None:
    """`connections` at once, each asking `each` times in a row."""

    async def one() -> None:
        connection = await Connection.open(port)
        for _ in range(each):
            await connection.ask(request)
        await connection.close()

    await asyncio.gather(*(one() for _ in range(connections)))


async def once(port: int, request: bytes) -> Answer:
    connection = await Connection.open(port)
    answer = await connection.ask(request)
    await connection.close()
    return answer
