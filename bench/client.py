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


def get(path: str) -> bytes:
    """One whole request."""
    return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()


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


async def load(port: int, request: bytes, connections: int, each: int) -> list[Answer]:
    """`connections` at once, each asking `each` times in a row; the last answer of each."""

    async def one() -> Answer:
        connection = await Connection.open(port)
        for _ in range(each):
            answer = await connection.ask(request)
        await connection.close()
        return answer

    return await asyncio.gather(*(one() for _ in range(connections)))


async def once(port: int, request: bytes) -> Answer:
    connection = await Connection.open(port)
    answer = await connection.ask(request)
    await connection.close()
    return answer


def chunks(body: bytes) -> list[bytes]:
    """What a chunked body was written in."""
    parts = []
    while (size := int(body[: (at := body.index(b"\r\n"))], 16)) > 0:
        parts.append(body[at + 2 : at + 2 + size])
        body = body[at + 4 + size :]
    return parts
