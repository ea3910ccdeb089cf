"""Answers to earlier searches, by the version of the table they were found in: an answer never outlives its table.

They are kept in this process and, where the recipe names one, in a Redis server, which other servers over the same
tables share. Redis is asked for as long as it answers at once; without it everything goes on.
"""

import asyncio
import hashlib
import importlib.util
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from server.errors import ServiceError
from server.knowledge.report import Found

log = logging.getLogger(__name__)

T = TypeVar("T")

_WAIT_S = 0.25
_PAUSE_S = 30.0
_KEPT_S = 86_400
_PREFIX = "hearth:query:"
_OVERHEAD = 200
"""Bytes an answer takes besides its own."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Found)


class QueryCache:
    """Of all collections of one server. `memory` is in bytes; `hits` and `misses` count since the start."""

    def __init__(self, memory: int, redis: str | None = None, **access: str | None) -> None:
        """`access` is the `username` and `password` of Redis."""
        self.hits = self.misses = self.bytes = 0
        self._memory = memory
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._redis = redis
        self._access = access
        if redis is not None and importlib.util.find_spec("redis") is None:
            raise ServiceError("policies.tiering.hot.redis needs the package redis; run: pip install hearth[redis]")
        self._client: Any = None
        self._not_before = 0.0

    async def get(self, key: str) -> Found | None:
        """The answer that was kept under this key, as one that cost no tokens; None where there is none."""
        started = time.perf_counter()
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
        elif (kept := await self._shared_get(key)) is not None:
            self._keep(key, kept)
        if kept is None:
            self.misses += 1
            return None
        try:
            found = _decoder.decode(kept)
        except msgspec.MsgspecError:  # another Hearth wrote it
            self.misses += 1
            return None
        self.hits += 1
        timings = {"cache": (time.perf_counter() - started) * 1000}
        return replace(found, tokens=0, timings_ms=timings, is_kept=True)

    async def put(self, key: str, found: Found) -> None:
        encoded = _encoder.encode(found)
        self._keep(key, encoded)
        if self._redis is not None:
            await self._asked(lambda client: client.set(_PREFIX + key, encoded, ex=_KEPT_S))

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _keep(self, key: str, encoded: bytes) -> None:
        if key in self._kept:
            self.bytes -= len(self._kept.pop(key)) + _OVERHEAD
        self._kept[key] = encoded
        self.bytes += len(encoded) + _OVERHEAD
        while self.bytes > self._memory:
            _, oldest = self._kept.popitem(last=False)
            self.bytes -= len(oldest) + _OVERHEAD

    async def _shared_get(self, key: str) -> bytes | None:
        if self._redis is None:
            return None
        found: bytes | None = await self._asked(lambda client: client.get(_PREFIX + key))
        return found

    async def _asked(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """What Redis answers; None while it does not."""
        now = asyncio.get_running_loop().time()
        if now < self._not_before:
            return None
        room = importlib.import_module("redis.asyncio")
        faults = importlib.import_module("redis.exceptions")
        if self._client is None:
            self._client = room.Redis.from_url(
                self._redis, socket_timeout=_WAIT_S, socket_connect_timeout=_WAIT_S, **self._access
            )
        try:
            return await _within(ask(self._client))
        except (faults.RedisError, OSError, TimeoutError) as error:
            self._not_before = now + _PAUSE_S
            log.warning("the query cache goes without Redis for %.0f s: %s", _PAUSE_S, error)
            return None


async def _within(answer: Awaitable[T]) -> T:
    async with asyncio.timeout(2 * _WAIT_S):
        return await answer


def key_of(*parts: object) -> str:
    """A key for an answer that these parts decide."""
    return hashlib.sha256(msgspec.msgpack.encode([str(part) for part in parts])).hexdigest()
