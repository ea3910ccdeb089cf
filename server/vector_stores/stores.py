"""Every vector store of a running server: the recipe's collections, and those that clients made. Knows no HTTP."""

import asyncio
import difflib
import logging
import shutil
import time
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import Self

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import Conflict, InvalidValue, KnowledgeUnavailable, NotFound, RequestError
from server.files import Files
from server.knowledge import Collection, Shelf
from server.knowledge.document import AttributeValue
from server.knowledge.optimizer import Optimizer
from server.models.served import Served
from server.state import State
from server.vector_stores.facts import Batch, Facts, Status, StoreFact, StoreFile, counts
from server.vector_stores.intake import Intake

log = logging.getLogger(__name__)

_MAX_FILES = 10_000
"""Of one store, which lists and counts hold in memory."""
_OPENING_SECONDS = 5.0
"""How long a new store is waited for; it takes a twentieth of a second where its model is loaded."""


@dataclass(frozen=True)
class Attached:
    """A file to attach. `chunk` is None where it is cut as its store says."""

    file: str
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    chunk: ChunkSpec | None = None


@dataclass(frozen=True)
class Changes:
    """What to change of a store; None leaves it, and `expires_days` of 0 takes the expiry away."""

    name: str | None = None
    metadata: Mapping[str, str] | None = None
    expires_days: int | None = None


@dataclass(frozen=True)
class Seen:
    """What a store holds: files by status, bytes on disk; the model that embeds; whether something is still to do."""

    counts: Mapping[Status, int]
    bytes: int
    embed: str | None
    busy: bool


@dataclass
class _Life:
    """A store's tasks. The one that keeps it open is the runtime's own where the store is the recipe's."""

    shelf: Shelf
    intake: Intake
    keeping: asyncio.Task[None] | None
    taking: asyncio.Task[None]


class VectorStores:
    """A context that ends everything it began. `shelves` are the recipe's, whose tasks it leaves."""

    def __init__(
        self,
        state: State,
        files: Files,
        models: Mapping[str, Served],
        shelves: Mapping[str, Shelf],
        folder: Path,
        optimizer: Optimizer,
    ) -> None:
        self._facts = Facts(state)
        self._files = files
        self._models = models
        self._shelves = shelves
        self._folder = folder
        self._optimizer = optimizer
        self._lives: dict[str, _Life] = {}

    async def __aenter__(self) -> Self:
        """Opens every store there is, and goes on with files that were not taken in yet; returns at once."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._close()

    async def _close(self) -> None:
        for name in list(self._lives):
            await self._end(name)

    # ---- stores -----------------------------------------------------------------------------------------------------

    async def every(self) -> list[StoreFact]:
        """Oldest first. A collection that the recipe no longer has is not among them."""
        return [each for each in await self._facts.stores() if each.embed is not None or each.id in self._shelves]

    async def find(self, store_id: str) -> StoreFact:
        """Raises NotFound with the nearest names."""
        known = {each.id: each for each in await self.every()}
        if store_id not in known:
            near = difflib.get_close_matches(store_id, known, n=3, cutoff=0.4) or sorted(known)[:5]
            message = f"There is no vector store `{store_id[:100]}`. This server has: {', '.join(near) or 'none'}."
            raise NotFound(message, param="vector_store_id")
        return known[store_id]

    async def create(self, store: StoreFact, embedding_model: str | None) -> StoreFact:
        """Open a new collection for `store`, whose id and model are chosen here. Raises InvalidValue.

        It can be searched at once, unless its model is still loading.
        """
        made = replace(store, id=f"vs_{token_hex(12)}", embed=self._embedder(embedding_model))
        await self._facts.put(made)
        self._begin(made)
        with suppress(TimeoutError, KnowledgeUnavailable):
            async with asyncio.timeout(_OPENING_SECONDS):
                await self.shelf(made.id).ready()
        return made

    async def change(self, store: StoreFact, changes: Changes) -> StoreFact:
        """Raises Conflict for what the recipe says of its own collections, RequestError for an expired store."""
        if store.embed is None and (changes.name is not None or changes.expires_days is not None):
            raise Conflict(f"`{store.id}` is a collection of the recipe: its name and its life are the recipe's.")
        _check_life(store)
        days = store.expires_days if changes.expires_days is None else changes.expires_days or None
        changed = replace(
            store,
            name=store.name if changes.name is None else changes.name,
            metadata=store.metadata if changes.metadata is None else changes.metadata,
            expires_days=days,
            last_active_at=int(time.time()),
        )
        await self._facts.change(changed)
        return changed

    async def delete(self, store: StoreFact) -> None:
        """The store with its rows; the files that were attached stay. Raises Conflict for one of the recipe."""
        if store.embed is None:
            raise Conflict(
                f"`{store.id}` is a collection of the recipe and cannot be deleted here: take it out of the recipe.",
                param="vector_store_id",
            )
        await self._facts.forget(store.id)
        await self._drop(store.id)

    def shelf(self, name: str) -> Shelf:
        """The shelf of a store that exists. Raises KnowledgeUnavailable where the recipe's model for it is gone."""
        shelf = self._shelf_of(name)
        if shelf is None:
            raise KnowledgeUnavailable(f"The model that embeds for `{name[:100]}` is gone from the recipe.")
        return shelf

    def __contains__(self, name: str) -> bool:
        return name in self._lives or name in self._shelves

    async def seen(self, store: StoreFact) -> Seen:
        """What a store holds and whether it is still at work. While its collection is opening it holds nothing."""
        shelf = self._shelf_of(store.id)
        found = counts(await self._facts.files(store.id))
        size, embed = 0, store.embed
        if shelf is not None and shelf.opened:
            collection = shelf.collection
            size, embed = await collection.bytes(), collection.spec.embed
            if store.embed is None:
                found = found | {"completed": (await collection.status()).documents}
        busy = found["in_progress"] > 0 or (shelf is not None and shelf.state in ("opening", "syncing"))
        return Seen(found, size, embed, busy)

    def chunk(self, store: StoreFact) -> ChunkSpec:
        """How a store cuts files that do not say otherwise."""
        shelf = self._shelf_of(store.id)
        return shelf.spec.chunk if shelf is not None else store.chunk or ChunkSpec()

    async def used(self, store: StoreFact) -> None:
        """It was searched: its expiry counts from now. Raises RequestError where it has expired."""
        _check_life(store)
        await self._facts.touch(store.id)

    # ---- files of a store -------------------------------------------------------------------------------------------

    async def attach(self, store: StoreFact, attached: Sequence[Attached], *, batch: bool = False) -> Batch:
        """Attach files, which are taken in one after another from now on; the batch is kept where it is asked for.

        Raises InvalidValue for a file that was not uploaded and for attributes the store cannot keep.
        """
        _check_life(store)
        await self.check_uploaded([each.file for each in attached])
        shelf = self._opening(store)
        held = {each.file for each in await self._facts.files(store.id)}
        if len(held | {each.file for each in attached}) > _MAX_FILES:
            raise RequestError(f"A vector store takes at most {_MAX_FILES} files.")
        now = int(time.time())
        rows: dict[str, StoreFile] = {}
        for each in attached:
            shelf.check(each.attributes)
            rows[each.file] = StoreFile(
                0, store.id, each.file, "in_progress", None, None, each.attributes, each.chunk, 0, now
            )
        made = Batch(f"vsfb_{token_hex(12)}", store.id, now, cancelled=False, files=list(rows.values()))
        await self._facts.attach(made.files, made if batch else None)
        await self._facts.touch(store.id)
        self._wake(store.id)
        return made

    async def check_uploaded(self, file_ids: Sequence[str]) -> None:
        """Raises NotFound where one is no file's."""
        known = {file.id for file in await self._files.every()}
        if (missing := next((each for each in file_ids if each not in known), None)) is not None:
            raise NotFound(f"There is no file `{missing[:100]}`: upload it first.", param="file_id")

    async def files(self, store: StoreFact) -> list[StoreFile]:
        """Every file, oldest first: what clients attached, after what the recipe's sources brought."""
        attached = await self._facts.files(store.id)
        if store.embed is not None:
            return attached
        shown = {each.file for each in attached}
        held = await self.shelf(store.id).collection.documents()
        own = [each for each in held if each.id not in shown]
        return [_of_source(store, each.id, each.attributes, each.bytes) for each in own] + attached

    async def file(self, store: StoreFact, file_id: str) -> StoreFile:
        """Raises NotFound."""
        found = await self._facts.file(store.id, file_id)
        if found is None and store.embed is None:
            held = await self.shelf(store.id).collection.document(file_id)
            if held is not None:
                found = _of_source(store, file_id, held.document.attributes, held.bytes)
        if found is None:
            message = f"The vector store `{store.id}` has no file `{file_id[:100]}`."
            raise NotFound(message, param="file_id")
        return found

    async def set_attributes(
        self, store: StoreFact, file: StoreFile, attributes: Mapping[str, AttributeValue]
    ) -> StoreFile:
        """Raises InvalidValue for attributes the store cannot keep."""
        _check_life(store)
        collection = self.shelf(store.id).collection
        collection.check(attributes)
        # The fact first: whoever takes the file in just now looks at it again when that is done.
        await self._facts.set_attributes(store.id, file.file, attributes)
        await collection.set_attributes(file.file, attributes)
        return replace(file, attributes=attributes)

    async def detach(self, store: StoreFact, file: StoreFile) -> None:
        """Take a file and its chunks out. Raises RequestError for one that a source of the recipe brings."""
        held = await self.shelf(store.id).collection.document(file.file) if file.seq == 0 else None
        if held is not None and held.document.is_declared:
            raise Conflict(f"`{file.file}` comes from a source of the recipe: it goes when it is gone from there.")
        await self._detach(store.id, file.file)

    async def forget_file(self, file_id: str) -> None:
        """A file was deleted: take it out of every store."""
        for name in await self._facts.stores_of(file_id):
            await self._detach(name, file_id)

    async def _detach(self, name: str, file_id: str) -> None:
        await self._facts.detach(name, file_id)
        shelf = self._shelf_of(name)
        if shelf is not None and shelf.opened:
            await shelf.collection.delete([file_id])

    async def batch(self, store: StoreFact, batch_id: str) -> Batch:
        """Raises NotFound."""
        found = await self._facts.batch(store.id, batch_id)
        if found is None:
            message = f"The vector store `{store.id}` has no file batch `{batch_id[:100]}`."
            raise NotFound(message, param="batch_id")
        return found

    async def cancel(self, store: StoreFact, batch_id: str) -> Batch:
        """What of the batch still waits is not taken in; what is, stays. Raises NotFound."""
        await self._facts.cancel(await self.batch(store, batch_id))
        return await self.batch(store, batch_id)

    # ---- lives ------------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        now = int(time.time())
        for name, shelf in self._shelves.items():
            shelf.cut_as(partial(self._asked_cuts, name))
            await self._facts.put(StoreFact(name, name, None, None, {}, None, None, now, now))
        lasting = [store for store in await self._facts.stores() if store.embed is not None and not store.expired]
        await asyncio.to_thread(_keep_only, self._folder, {store.id for store in lasting})
        for store in lasting:
            self._begin(store)
        for name in await self._facts.unsettled():
            if name in self:
                self._wake(name)

    def _shelf_of(self, name: str) -> Shelf | None:
        if name in self._shelves:
            return self._shelves[name]
        life = self._lives.get(name)
        return None if life is None else life.shelf

    def _begin(self, store: StoreFact) -> None:
        """Open the collection of a store that a client made."""
        model = self._models.get(store.embed or "")
        if model is None:
            log.error("vector store %s needs the model `%s`, which the recipe no longer has", store.id, store.embed)
            return
        spec = CollectionSpec(embed=model.name, chunk=store.chunk or ChunkSpec())
        others = [each for each in self._models.values() if each.spec.task == "embed"]
        folder, optimizer = self._folder / store.id, self._optimizer
        collection = Collection(store.id, spec, model, folder, undeclared=True, others=others, optimizer=optimizer)
        collection.cut_as(partial(self._asked_cuts, store.id))
        shelf = Shelf(store.id, collection, model)
        self._live(shelf, asyncio.create_task(shelf.keep()))

    async def _asked_cuts(self, name: str) -> dict[str, ChunkSpec]:
        """The files of a store that were attached with a chunking of their own."""
        return {each.file: each.chunk for each in await self._facts.files(name) if each.chunk is not None}

    def _live(self, shelf: Shelf, keeping: asyncio.Task[None] | None) -> _Life:
        intake = Intake(shelf, self._facts, self._files)
        life = _Life(shelf, intake, keeping, asyncio.create_task(intake.run()))
        self._lives[shelf.name] = life
        return life

    def _wake(self, name: str) -> None:
        life = self._lives.get(name)
        if life is None and name in self._shelves:
            life = self._live(self._shelves[name], None)
        if life is not None:
            life.intake.wake()

    async def _end(self, name: str) -> None:
        """First what writes to the collection, then what holds it open."""
        life = self._lives.pop(name)
        for task in (life.taking, life.keeping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _drop(self, name: str) -> None:
        if name in self._lives:
            await self._end(name)
        await asyncio.to_thread(shutil.rmtree, self._folder / name, ignore_errors=True)

    def _opening(self, store: StoreFact) -> Shelf:
        """A store's shelf, which may still be opening. Raises KnowledgeUnavailable where it failed to."""
        shelf = self.shelf(store.id)
        if shelf.error is not None:
            _ = shelf.collection
        return shelf

    def _embedder(self, asked: str | None) -> str:
        embedders = {name: model for name, model in self._models.items() if model.spec.task == "embed"}
        if not embedders:
            raise RequestError("This recipe has no model with `task: embed`, which a vector store needs.")
        if asked is None:
            return next(iter(embedders))
        found = next((name for name, model in embedders.items() if asked in (name, *model.spec.aliases)), None)
        if found is None:
            message = f"`{asked[:100]}` is no embedding model of this server, which has: {', '.join(embedders)}."
            raise InvalidValue(message, param="embedding_model")
        return found


def _keep_only(folder: Path, names: Set[str]) -> None:
    """Stores that expired, or whose deletion a crash cut short, leave folders behind."""
    for path in folder.glob("vs_*"):
        if path.name not in names:
            shutil.rmtree(path, ignore_errors=True)


def _check_life(store: StoreFact) -> None:
    if store.expired:
        raise RequestError(f"The vector store `{store.id}` has expired.", param="vector_store_id")


def _of_source(store: StoreFact, file_id: str, attributes: Mapping[str, AttributeValue], size: int) -> StoreFile:
    """A document that a source of the recipe brought, as a file of its store; 0 says that nobody attached it."""
    return StoreFile(0, store.id, file_id, "completed", None, None, attributes, None, size, store.created_at)
