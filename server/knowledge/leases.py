"""Earlier versions of a table that readers keep: each has a tag on its version, past which no process cleans up."""

import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

from server.errors import InvalidValue

_LEASE = "lease-"
_LONGEST = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_GONE, _TRIES = "Not found", 20

_leases = itertools.count()


class Leases:
    """One table's. Whoever dies with a lease lets go of it after an hour."""

    def __init__(self, connection: Any, table: Any) -> None:
        self._connection = connection
        self._table = table

    @asynccontextmanager
    async def of(self, version: int) -> AsyncIterator[Any]:
        """A handle on a version that no process cleans up meanwhile. Raises InvalidValue where it is gone already."""
        lease = f"{_LEASE}{int(time.time())}-{os.getpid()}-{next(_leases)}"
        kept = [each["version"] for each in await self._table.list_versions()]
        if version not in kept:
            message = f"Version {version} is not kept; those from {min(kept)} to {max(kept)} are."
            raise InvalidValue(message, param="as_of")
        tags = self._table.tags
        await tags.create(lease, version)
        try:
            table = await self._connection.open_table(self._table.name)
            try:
                await table.checkout(version)
                yield table
            finally:
                table.close()
        finally:
            await tags.delete(lease)

    async def clearing(self, retention: timedelta) -> timedelta:
        """`retention`, or longer where a version is leased that is older: LanceDB refuses to clean past a tag."""
        tags = await self._tags()
        for name in [each for each in tags if _is_over(each)]:
            await self._table.tags.delete(name)
            del tags[name]
        if not tags:  # nearly always; to list versions LanceDB reads a file for each
            return retention
        leased = {each["version"] for each in tags.values()}
        made: list[datetime] = [
            each["timestamp"] for each in await self._table.list_versions() if each["version"] in leased
        ]
        return max([retention, *(datetime.now() - each + _SECOND for each in made)])  # as LanceDB tells it

    async def _tags(self) -> dict[str, Any]:
        """All of the table's. LanceDB reads one after another, and gives up where one goes meanwhile: a lease ends."""
        tries = 0
        while True:
            try:
                return dict(await self._table.tags.list())
            except RuntimeError as error:
                tries += 1
                if _GONE not in str(error) or tries == _TRIES:
                    raise


def _is_over(tag: str) -> bool:
    """Whether a tag is a lease whose reader forgot it, or died."""
    if not tag.startswith(_LEASE):
        return False
    taken = tag.removeprefix(_LEASE).partition("-")[0]
    return time.time() - int(taken) > _LONGEST.total_seconds()
