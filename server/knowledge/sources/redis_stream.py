"""A Redis stream, read as a consumer group. Fields are `value` with `key` and `content-type`, or one field alone."""

import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from config.knowledge import RedisSource
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Message
from server.knowledge.sources.stream import BATCH, IDLE_S, SourceLost

_ABANDONED_MS = 60_000
"""After this long without an acknowledgement another reader takes a message over."""
_SEQUENCE_BITS = 22
"""An entry's id is milliseconds and a sequence number; 22 bits hold four million of a millisecond."""
_CONNECT_S = 5.0


@asynccontextmanager
async def connected(spec: RedisSource, group: str, ledger: Ledger) -> AsyncIterator["RedisStream"]:
    password = None if spec.password is None else spec.password.get_secret_value()
    client = Redis.from_url(
        spec.redis,
        username=spec.username,
        password=password,
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=IDLE_S + _CONNECT_S,
    )
    stream = RedisStream(client, spec.stream, group)
    try:
        await stream.begin(fresh=not await ledger.positions())
        await ledger.reached({spec.stream: -1})
        yield stream
    finally:
        await client.aclose()


class RedisStream:
    """One consumer of the group. What it was given before and did not acknowledge comes first."""

    def __init__(self, client: Redis, key: str, group: str) -> None:
        self._client = client
        self._key = key
        self._group = group
        self._consumer = socket.gethostname()
        self._behind: int | None = None
        self._own_after: str | None = "0"
        self._claim_from: str | None = "0-0"

    async def begin(self, *, fresh: bool) -> None:
        """Make the group where it is missing; `fresh` reads the stream from its beginning."""
        with _faults():
            try:
                await self._client.xgroup_create(self._key, self._group, id="0", mkstream=True)
            except ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
                if fresh:
                    await self._client.xgroup_setid(self._key, self._group, id="0")

    @property
    def behind(self) -> int | None:
        return self._behind

    async def batch(self) -> list[Message]:
        with _faults():
            if found := await self._unfinished() or await self._abandoned():
                return found
            found = await self._read(">")
            if not found:
                self._claim_from = "0-0"  # nothing new: look again for what another reader left
            self._behind = await self._unread() if len(found) == BATCH else 0
            return found

    async def commit(self, batch: Sequence[Message]) -> None:
        with _faults():
            await self._client.xack(self._key, self._group, *(_entry(message.offset) for message in batch))

    async def _unfinished(self) -> list[Message]:
        """What this machine's reader was given before it ended."""
        while self._own_after is not None:
            found = await self._read(self._own_after)
            self._own_after = _entry(found[-1].offset) if found else None
            if found:
                return found
        return []

    async def _read(self, after: str) -> list[Message]:
        read: Any = await self._client.xreadgroup(
            self._group, self._consumer, {self._key: after}, count=BATCH, block=int(1000 * IDLE_S)
        )
        if not read:
            return []
        # RESP2 answers with a list of pairs, RESP3 with a mapping of lists.
        entries = next(iter(read.values()))[0] if isinstance(read, dict) else read[0][1]
        return [self._message(entry, fields) for entry, fields in entries if fields]

    async def _unread(self) -> int | None:
        """Redis counts them from version 7 on, and only where nothing was deleted from the stream."""
        groups: Any = await self._client.xinfo_groups(self._key)
        own: Mapping[str, Any] = next((each for each in groups if _text(each["name"]) == self._group), {})
        lag = own.get("lag")
        return None if lag is None else int(lag)

    async def _abandoned(self) -> list[Message]:
        """What another reader was given and has not acknowledged for long."""
        while self._claim_from is not None:
            after, entries, *_ = await self._client.xautoclaim(
                self._key, self._group, self._consumer, _ABANDONED_MS, self._claim_from, count=BATCH
            )
            self._claim_from = None if after in (b"0-0", "0-0") else after.decode()
            if entries:
                return [self._message(entry, fields) for entry, fields in entries if fields is not None]
        return []

    def _message(self, entry: bytes, fields: Mapping[bytes, bytes]) -> Message:
        milliseconds, _, sequence = entry.decode().partition("-")
        value = fields.get(b"value")
        if value is None and len(fields) == 1:
            value = next(iter(fields.values()))
        return Message(
            partition=self._key,
            offset=(int(milliseconds) << _SEQUENCE_BITS) + int(sequence),
            key=_text(fields.get(b"key")),
            value=value,
            content_type=_text(fields.get(b"content-type")),
            at=int(milliseconds) / 1000,
        )


def _entry(offset: int) -> str:
    return f"{offset >> _SEQUENCE_BITS}-{offset & ((1 << _SEQUENCE_BITS) - 1)}"


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode("utf-8", "replace")


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise SourceLost(str(error) or type(error).__name__) from error
