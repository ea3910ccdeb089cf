"""Takes attached files into their store's collection, in the order they were attached. Knows no HTTP.

What waits is said by the facts in `state.db` and by nothing else, so a restart goes on where the last process ended.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from server.errors import HearthError, KnowledgeUnavailable, NotFound
from server.files import Files
from server.knowledge import Document, Shelf, Unreadable, Unsupported, extract_upload
from server.knowledge.collection import Collection
from server.vector_stores.facts import Code, Facts, StoreFile

log = logging.getLogger(__name__)

_GROUP = 32
"""Files that are embedded and written together at most: one commit for many, and still a slow file holds up few."""

_AGAIN_SECONDS = 10.0
"""After a fault of the database, which a full disk is."""

Fault = tuple[Code, str]
"""Why a file was not taken in: OpenAI's code and a sentence."""
_Read = tuple[StoreFile, Document]


class Intake:
    """One store's. `run` it in a task of its own and `wake` it when files were attached."""

    def __init__(self, shelf: Shelf, facts: Facts, files: Files) -> None:
        self._shelf = shelf
        self._facts = facts
        self._files = files
        self._due = asyncio.Event()

    def wake(self) -> None:
        self._due.set()

    async def run(self) -> None:
        """Take in what waits, then wait for more, until cancelled."""
        while True:
            self._due.clear()
            pause = None
            try:
                await self.drain()
            except HearthError as error:
                log.error("%s: files wait, and are tried again: %s", self._shelf.name, error.message)
                pause = _AGAIN_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._due.wait()

    async def drain(self) -> None:
        """Take in everything that waits."""
        while pending := await self._facts.pending(self._shelf.name, _GROUP):
            try:
                await self._shelf.ready()
                collection = self._shelf.collection
            except KnowledgeUnavailable as error:
                await self._fail(pending, ("server_error", error.message))
                continue
            # Files that are cut alike go together; the order they came in is kept.
            for _, alike in groupby(pending, key=lambda each: each.chunk):
                await self._take(collection, list(alike))

    async def _take(self, collection: Collection, files: Sequence[StoreFile]) -> None:
        documents: list[_Read] = []
        for file in files:
            read = await self._read(collection, file)
            if isinstance(read, Document):
                documents.append((file, read))
            else:
                await self._fail([file], read)
        try:
            await self._put(collection, documents)
        except HearthError:
            # One of them may be at fault for all, or the model's worker was started anew: each once more by itself.
            for each in documents:
                await self._alone(collection, each)

    async def _alone(self, collection: Collection, read: _Read) -> None:
        try:
            await self._put(collection, [read])
        except HearthError as error:
            log.warning("%s: file %s was not taken in: %s", self._shelf.name, read[0].file, error.message)
            await self._fail([read[0]], ("server_error", error.message))

    async def _put(self, collection: Collection, documents: Sequence[_Read]) -> None:
        if documents:
            await collection.upsert([document for _, document in documents], documents[0][0].chunk)
        for file, _ in documents:
            held = await collection.document(file.file)
            if held is None:
                await self._fail([file], ("invalid_file", "There is no text in it."))
            else:
                await self._facts.settle(file, "completed", held.bytes, None)
                await self._catch_up(collection, file)

    async def _catch_up(self, collection: Collection, file: StoreFile) -> None:
        """What clients asked of the file while it was being taken in."""
        now = await self._facts.file(file.store, file.file)
        if now is None or now.status == "cancelled":
            await collection.delete([file.file])
        elif now.seq == file.seq and now.attributes != file.attributes:
            await collection.set_attributes(file.file, now.attributes)

    async def _read(self, collection: Collection, file: StoreFile) -> Document | Fault:
        try:
            stored = await self._files.find(file.file)
            path = self._files.path(stored)
            found = await asyncio.to_thread(extract_upload, path, file.file, stored.filename, collection.types)
        except NotFound as error:
            return "invalid_file", error.message
        except Unsupported as error:
            return "unsupported_file", _sentence(error)
        except Unreadable as error:
            return "invalid_file", _sentence(error)
        return replace(found, attributes={**found.attributes, **file.attributes})

    async def _fail(self, files: Sequence[StoreFile], fault: Fault) -> None:
        for file in files:
            await self._facts.settle(file, "failed", 0, fault)


def _sentence(error: Unreadable) -> str:
    return f"The file cannot be read: {error}."
