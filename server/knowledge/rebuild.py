"""Builds a collection's table anew beside the one that serves, and switches when both hold the same documents.

The table that serves says which documents there are: what the new one lacks, or has in another version, is brought in
from its file or from the old rows, some documents a turn, so that changes come in between. Nothing has to be kept about
how far it is: whoever begins again compares both tables.
"""

import asyncio
import logging
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config.knowledge import ChunkSpec
from server.errors import ServiceError
from server.knowledge.attributes import fitting
from server.knowledge.document import GIVEN, Document, Unreadable, document_id
from server.knowledge.extract import extract, fingerprint
from server.knowledge.ingest import Ingest
from server.knowledge.licences import Licences
from server.knowledge.optimizer import Optimizer
from server.knowledge.record import Speed
from server.knowledge.report import Rebuilding
from server.knowledge.stored import Stored

if TYPE_CHECKING:
    from server.knowledge.store import Store

log = logging.getLogger(__name__)

_TURN_S = 0.25
"""About how long changes that clients send wait for a turn of this."""
_MOST_TOGETHER = 256
_COMMITS = 64
_ROOM = 1.5
"""Times the size of the table that serves: the new one with its indices."""
_RETENTION = timedelta(hours=1)
_TOLD_EVERY = 30.0

Known = Mapping[str, Stored]
Into = Callable[["Store", Known, ChunkSpec | None], Awaitable[Ingest]]
"""An ingest that brings documents into a store, cut as today's recipe says or as is asked."""
Turn = Callable[[], AbstractAsyncContextManager[object]]
CutAs = Callable[[], Awaitable[Mapping[str, ChunkSpec]]]
"""The documents, by id, that are cut in another way than the recipe says, because whoever brought them asked for it."""


async def as_the_recipe_says() -> Mapping[str, ChunkSpec]:
    return {}


class Rebuild:
    """One new table, from its first document to the switch. One task runs it; `take` belongs into a turn."""

    def __init__(
        self,
        old: "Store",
        new: "Store",
        into: Into,
        licences: Licences,
        cut_as: CutAs,
        reason: str,
        optimizer: Optimizer | None = None,
    ) -> None:
        self.new = new
        self._old = old
        self._into = into
        self._licences = licences
        self._cut_as = cut_as
        self._reason = reason
        self._optimizer = optimizer
        self._left = self._documents = self._chunks = self._tokens = self._commits = 0
        self._embedding = 0.0
        self._together = 1
        self._given_up: dict[str, str] = {}
        self._started = self._told = time.monotonic()

    @property
    def progress(self) -> Rebuilding:
        seconds = round(time.monotonic() - self._started, 3)
        done = self._documents - self._left
        return Rebuilding(self._reason, self._documents, done, self._chunks, seconds)

    @property
    def pending(self) -> int:
        """Documents that are still to be brought in."""
        return self._left

    @property
    def speed(self) -> Speed:
        return Speed(self._chunks, self._tokens, self._embedding)

    async def run(self, turn: Turn, last: Turn, switch: Callable[[], Awaitable[None]]) -> None:
        """Bring everything in, then call `switch`, in a `last` turn in which nobody else writes.

        Raises what the model or the store raises, and ServiceError where the disk has no room for both tables.
        """
        while True:
            wanted = await self._differing()
            await self._check_room(len(wanted))
            while wanted:
                part, wanted = wanted[: self._together], wanted[self._together :]
                async with turn():
                    began = time.monotonic()
                    await self._carry(part)
                    self._pace(time.monotonic() - began)
                if self._commits >= _COMMITS:
                    self._commits = 0
                    await self.new.compact(_RETENTION, self._optimizer)
                self._tell()
            if await self._differing():
                continue
            await self.new.compact(_RETENTION, self._optimizer)
            async with last():
                if not await self._differing():
                    await switch()
                    return

    async def take(self, documents: Sequence[Document], chunk: ChunkSpec | None) -> None:
        """Bring in documents that come just now, before the table that serves has them: they are whole here.

        What the old rows could not give back, such as attributes that the recipe declares only now, is kept so.
        """
        known = await self.new.known([document.id for document in documents])
        ingest = await self._into(self.new, known, chunk)
        await ingest.add(documents)
        await ingest.finish()
        self._count(ingest)

    async def _differing(self) -> list[str]:
        """The documents that both tables do not hold in the same version."""
        old, new = await asyncio.gather(self._old.documents(), self.new.documents())
        self._documents = len(old)
        wanted = [each for each, stored in old.items() if self._is_wanted(stored, new.get(each))]
        self._left = len(wanted)
        return wanted + [each for each in new if each not in old]

    def _is_wanted(self, old: Stored, new: Stored | None) -> bool:
        if self._given_up.get(old.id) == old.hash:
            return False
        return new is None or (new.hash, new.source) != (old.hash, old.source)

    async def _carry(self, ids: Sequence[str]) -> None:
        old, new = await asyncio.gather(self._old.documents(ids), self.new.documents(ids))
        ingest = await self._into(self.new, new, None)
        wanted = [stored for each, stored in old.items() if self._is_wanted(stored, new.get(each))]
        asked = await self._cut_as()
        reasons: dict[str, str] = {}
        for stored in wanted:
            document = await self._document(stored)
            if document is not None and stored.id not in asked:
                await ingest.add([document])
            elif document is not None:
                alone = await self._into(self.new, new, asked[stored.id])
                await alone.add([document])
                await alone.finish()
                self._count(alone)
                reasons |= {skipped.uri: skipped.reason for skipped in alone.report.skipped}
        await ingest.finish()
        await ingest.delete([each for each in new if each not in old])
        self._count(ingest)
        self._left = max(0, self._left - len(old))
        there = await self.new.documents([stored.id for stored in wanted])
        reasons |= {skipped.uri: skipped.reason for skipped in ingest.report.skipped}
        for stored in wanted:
            if self._is_wanted(stored, there.get(stored.id)):
                self._given_up[stored.id] = stored.hash
                log.warning("%s is not taken over: %s", stored.uri, reasons.get(stored.uri, "its rows do not agree"))

    async def _document(self, stored: Stored) -> Document | None:
        """From its file where that is as it was, else put together from the old rows; None where it is just gone."""
        if stored.path is not None and document_id(Path(stored.path)) == stored.id:
            try:
                return await asyncio.to_thread(self._extracted, Path(stored.path), stored)
            except Unreadable as reason:
                log.debug("%s is taken over from its rows: %s", stored.uri, reason)
        held = await self._old.held(stored.id)
        if held is None:
            return None
        vector = await self._given(stored)
        return replace(held.document, attributes=fitting(held.document.attributes, self.new.types), vector=vector)

    async def _given(self, stored: Stored) -> NDArray[np.float32] | None:
        """The vector that came with a document, as long as it is of the same model; None where the model has to."""
        if not stored.hash.startswith(GIVEN) or not self._old.shape.has_model_of(self.new.shape):
            return None
        rows = await self._old.whole([stored.id])
        return np.array(rows["vector"][0].as_py(), np.float32) if rows.num_rows == 1 else None

    def _extracted(self, path: Path, stored: Stored) -> Document:
        """Raises Unreadable."""
        if not self._licences.is_same(stored, stored.source, fingerprint(path)):
            raise Unreadable("the file is another one by now")
        return extract(path, stored.uri, stored.source, self.new.types)

    async def _check_room(self, wanted: int) -> None:
        old, new = await asyncio.gather(self._old.measure(), self.new.measure())
        share = wanted / max(1, self._documents)
        needed = int(_ROOM * share * old.live * max(1.0, self.new.dimension / self._old.dimension))
        free = (await asyncio.to_thread(shutil.disk_usage, self.new.folder)).free
        if needed > free:
            raise ServiceError(
                f"The new index needs about {needed / 1e9:.1f} GB on disk beside the old one ({new.disk / 1e9:.1f} GB "
                f"are written) and {free / 1e9:.1f} GB are free; the old one goes on serving."
            )

    def _count(self, ingest: Ingest) -> None:
        spent = ingest.speed
        self._chunks += spent.chunks
        self._tokens += spent.tokens
        self._embedding += spent.seconds
        self._commits += 1

    def _pace(self, seconds: float) -> None:
        """As many documents together as take one turn's time."""
        wanted = int(self._together * min(2.0, _TURN_S / max(seconds, 0.001)))
        self._together = min(_MOST_TOGETHER, max(1, wanted))

    def _tell(self) -> None:
        if time.monotonic() - self._told > _TOLD_EVERY:
            self._told = time.monotonic()
            log.info("%s: %d of %d documents are in the new index", self.new.folder.name, *self._done())

    def _done(self) -> tuple[int, int]:
        return self._documents - self._left, self._documents
