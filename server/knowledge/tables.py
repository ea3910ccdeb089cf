"""The tables of one collection: the one that serves, and the one that is built to take its place.

Which one serves is on record in the folder (`record`). Whoever opens a table marks it as in use, and who writes holds
the switch lock together with the others: so no table vanishes under a reader, and nobody writes to one that has just
been replaced.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from server.errors import HearthError
from server.knowledge.lock import InUse, SwitchLock
from server.knowledge.record import Record, Records, Seen
from server.knowledge.rows import HIT_COLUMNS, STATE_COLUMNS
from server.knowledge.shape import Shape, connected, created, free_name, shape_of, tables
from server.knowledge.store import Store

log = logging.getLogger(__name__)

_READ_COLUMNS = {*HIT_COLUMNS, *STATE_COLUMNS, "indexed", "vector", "position"}
_TRIES = 5


class Moved(HearthError):
    """Tables were switched again and again while this one was opened."""


class Opened:
    """A store that is in use, and how many of this process read from it just now."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._readers = 0
        self._left = asyncio.Event()
        self._left.set()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Store]:
        """The store, which is not closed before the block ends."""
        self._readers += 1
        self._left.clear()
        try:
            yield self.store
        finally:
            self._readers -= 1
            if not self._readers:
                self._left.set()

    async def close(self) -> None:
        """Once its last reader has left."""
        await self._left.wait()
        await self.store.close()


class Tables:
    """Opens them. Faults are LanceDB's: OSError, ValueError or RuntimeError."""

    def __init__(self, folder: Path, now: Shape, *, hot: int, language: str) -> None:
        """`now` is what rows would be made with today; the others are as of Store.open."""
        self.records = Records(folder)
        self.now = now
        self._folder = folder
        self._settings: dict[str, Any] = {"hot": hot, "language": language}
        self._lock = SwitchLock(folder)
        self._seen: Seen | None = None

    def writing(self) -> Any:
        """While the block lasts, no other table takes the place of the one that serves."""
        return self._lock.held(alone=False)

    def switching(self) -> Any:
        """While the block lasts nobody else, in whichever process, writes to any table of the collection."""
        return self._lock.held(alone=True)

    @property
    def moved(self) -> bool:
        """Whether the record was written anew since the serving table was opened; costs microseconds."""
        return self.records.seen() != self._seen

    async def serving(self) -> Opened:
        """The table that serves, made where there is none."""
        connection = await connected(self._folder)
        try:
            for _ in range(_TRIES):
                self._seen = await asyncio.to_thread(self.records.seen)
                name = (await self._record(connection)).serving
                if self._seen is None:
                    self._seen = await asyncio.to_thread(self.records.seen)
                if (opened := await self._opened(name)) is None:
                    continue
                if (await self._record(connection)).serving == name:
                    return opened
                await opened.close()
        finally:
            connection.close()
        raise Moved("the table that serves was switched again and again")

    async def is_current(self, opened: Opened) -> bool:
        """Whether a table's rows are what they would be if they were made now."""
        record = await asyncio.to_thread(self.records.read)
        blank = record is not None and record.serving == opened.store.name and record.blank
        return not blank and opened.store.shape.is_as(self.now)

    async def still_serves(self, opened: Opened) -> bool:
        """Whether the record names this table; looked at again where the record changed."""
        seen = await asyncio.to_thread(self.records.seen)
        record = await asyncio.to_thread(self.records.read)
        if record is None or record.serving != opened.store.name:
            return False
        self._seen = seen
        return True

    async def building(self, serving: Opened) -> Opened:
        """The table that is to take the serving one's place: where one was begun with today's shape, that one."""
        connection = await connected(self._folder)
        try:
            for name in reversed(await tables(connection)):
                if name == serving.store.name or not await self._is_now(connection, name):
                    continue
                if (opened := await self._opened(name)) is not None:
                    return opened
            name = await free_name(connection)
            await created(connection, name, self.now)
            if (opened := await self._opened(name)) is not None:
                return opened
        finally:
            connection.close()
        raise Moved(f"the table {name} was removed as soon as it was made")

    async def switch(self, to: Opened) -> None:
        """From now on this one serves. To be called within `switching`; whatever ends the process, one of both does."""
        made = to.store.shape.made
        name = to.store.name

        def change(record: Record) -> Record:
            speed = record.speed if made == record.made else None
            return replace(record, serving=name, made=made, blank=False, speed=speed)

        await asyncio.to_thread(self.records.change, change)
        self._seen = await asyncio.to_thread(self.records.seen)

    async def sweep(self, *kept: Opened) -> None:
        """Remove the tables that nobody has open, but for `kept`."""
        connection = await connected(self._folder)
        try:
            stays = {each.store.name for each in kept} | {(await self._record(connection)).serving}
            for name in await tables(connection):
                mark = InUse(self._folder, name)
                if name in stays or not await asyncio.to_thread(mark.hold_alone):
                    continue
                await connection.drop_table(name, ignore_missing=True)
                await asyncio.to_thread(mark.remove)
                log.info("%s: %s, whose place another took, is removed", self._folder.name, name)
        finally:
            connection.close()

    async def _record(self, connection: Any) -> Record:
        """What is on record. Of a folder without one, the oldest table has all documents."""
        found = await asyncio.to_thread(self.records.read)
        names = await tables(connection)
        if found is not None and found.serving in names:
            return found
        readable = [name for name in names if await self._is_readable(connection, name)]
        if not readable:
            name = await free_name(connection)
            await created(connection, name, self.now)
            readable = [name]
        table = await connection.open_table(readable[0])
        record = Record(readable[0], shape_of(await table.schema()).made)
        table.close()
        if found is None:
            return await asyncio.to_thread(self.records.begin, record)
        await asyncio.to_thread(self.records.change, lambda _: record)
        return record

    async def _is_readable(self, connection: Any, name: str) -> bool:
        table = await connection.open_table(name)
        try:
            return set((await table.schema()).names) >= _READ_COLUMNS
        finally:
            table.close()

    async def _is_now(self, connection: Any, name: str) -> bool:
        table = await connection.open_table(name)
        try:
            return shape_of(await table.schema()).is_as(self.now)
        finally:
            table.close()

    async def _opened(self, name: str) -> Opened | None:
        """None where somebody is removing it."""
        try:
            return Opened(await Store.named(self._folder, name, **self._settings))
        except FileNotFoundError:
            return None
