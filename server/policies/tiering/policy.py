"""The policy `tiering`: moves documents and weights that nobody asks for to cold storage, and back when they are asked
for."""

import asyncio
import importlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from config.bucket import Bucket
from config.policy import TieringSpec
from server import uploads
from server.errors import HearthError, KnowledgeUnavailable, ServiceError
from server.knowledge.catalogue import owner
from server.knowledge.lock import InUse
from server.knowledge.record import Records
from server.knowledge.serving import REBUILD
from server.knowledge.tier import STORE_FAULTS, Tier
from server.policies.report import Report, Tell
from server.policies.tiering.choosing import batches, unused, wanted
from server.policies.tiering.claim import claim
from server.policies.tiering.models import ModelTier
from server.state import State

if TYPE_CHECKING:
    from server.knowledge.moving import Moved, Mover
    from server.knowledge.store import Store

_MOVED = ("documents", "chunks", "bytes")


class TieringPolicy:
    """Works on the tables themselves, so it runs beside a server and without one."""

    name = "tiering"

    def __init__(
        self,
        spec: TieringSpec,
        data: Path,
        state: State,
        tiers: Mapping[str, Tier],
        models: ModelTier | None = None,
    ) -> None:
        """`tiers` are those of all collections; `data` is the data directory. `models` None moves no weights."""
        self.spec = spec
        self._data = data
        self._state = state
        self._tiers = tiers
        self.models = models

    async def prepare(self) -> None:
        """Find out whether the place can be used; where it cannot, the tiers say so. Raises nothing."""
        if self.spec.cold is not None:
            with suppress(HearthError):
                await self._claim()

    async def run(self, tell: Tell) -> Report:
        """Raises what the places, the tables or the record raise; the next run goes on with what is left."""
        if self.spec.cold is None:
            return await self._weights(tell)
        documents = await self._documents(tell)
        if self.models is None:
            return documents
        weights = await self._weights(tell)
        return Report(
            f"{documents.summary}; {weights.summary}",
            {**documents.figures, **weights.figures},
            (*documents.details, *weights.details),
        )

    async def _weights(self, tell: Tell) -> Report:
        place = None if self.spec.models is None else self.spec.models.cold
        assert self.models is not None and place is not None, "without a place there is no such policy"
        await asyncio.to_thread(claim, place, await self._owner(), "policies.tiering.models.cold")
        return await self.models.run(tell)

    async def _documents(self, tell: Tell) -> Report:
        await self._claim()
        out, back, details = await self._nothing(), await self._nothing(), []
        for name, tier in self._tiers.items():
            went, came, told = await self._collection(name, tier, tell)
            out, back = out + went, back + came
            details += [f"{name}: {each}" for each in told]
        where = self.spec.cold.url if isinstance(self.spec.cold, Bucket) else self.spec.cold
        figures = {f"{name}_out": float(getattr(out, name)) for name in _MOVED}
        figures |= {f"{name}_back": float(getattr(back, name)) for name in _MOVED}
        summary = f"{out.documents} documents ({out.bytes / 1e6:.1f} MB) went to {where}, {back.documents} came back"
        return Report(summary, figures, tuple(details))

    async def _claim(self) -> None:
        assert self.spec.cold is not None, "without a place there is no such policy"
        name = await self._owner()
        refusal = None
        try:
            await asyncio.to_thread(claim, self.spec.cold, name, "policies.tiering.cold")
        except HearthError as error:
            refusal = error.message
            raise
        finally:
            for tier in self._tiers.values():
                tier.refuse(refusal)

    async def _owner(self) -> str:
        return await owner(self._state, secrets.token_hex(16))

    async def _collection(self, name: str, tier: Tier, tell: Tell) -> "tuple[Moved, Moved, list[str]]":
        folder = self._data / "knowledge" / name
        nothing = await self._nothing()
        record = await asyncio.to_thread(Records(folder).read) if folder.is_dir() else None
        if record is None:
            return nothing, nothing, []
        # No index is built anew meanwhile, here or in another process, and no other run of this moves.
        mark = InUse(folder, REBUILD)
        if not await asyncio.to_thread(mark.hold_alone):
            return nothing, nothing, ["its index is being built anew, so its documents wait for the next run"]
        try:
            room = await asyncio.to_thread(importlib.import_module, "server.knowledge.store")
            store: Store = await room.Store.named(folder, record.serving, hot=0)
            try:
                return await self._moves(store, tier, tell)
            finally:
                await store.close()
        except STORE_FAULTS as error:
            raise KnowledgeUnavailable(f"The documents of collection {name} could not be moved: {error}") from error
        finally:
            mark.let_go()

    async def _moves(self, store: "Store", tier: Tier, tell: Tell) -> "tuple[Moved, Moved, list[str]]":
        catalogue, now = tier.catalogue, tier.catalogue.clock()
        await tier.note_reads()
        out = back = await self._nothing()
        listed = {each.id: each.bytes for each in await store.listed()}
        local = await store.documents()
        entries = await catalogue.entries()
        cold = {each.document: each.since for each in entries if each.stage == "cold"}
        hashes = {each.document: each.stored.hash for each in entries} | {each: local[each].hash for each in local}
        uses = await catalogue.uses(hashes)
        leave = unused([use for use in uses if use.document in local], self.spec.after.total_seconds(), now)
        come = [each for each in wanted(cold, uses) if each not in local]
        if self.spec.collections is not None and catalogue.collection not in self.spec.collections:
            leave, come = [], [each for each in cold if each not in local]
        if not leave and not come and len(cold) == len(entries) and not local.keys() & cold.keys():
            return out, back, []
        table = await tier.table(store.shape)
        try:
            room = await asyncio.to_thread(importlib.import_module, "server.knowledge.moving")
            mover: Mover = room.Mover(store, table, catalogue)
            told = await self._end_uploads(catalogue.collection)
            mended = await mover.mend()
            for part in batches(come, {each.document: each.listed.bytes for each in entries}):
                tell(f"{tier.catalogue.collection}: {back.documents} of {len(come)} documents came back")
                back += await mover.warm(part)
            for part in batches(leave, listed):
                tell(f"{tier.catalogue.collection}: {out.documents} of {len(leave)} documents went")
                out += await mover.cool(part, now)
            if out.documents or back.documents or mended:
                await table.settle()
                await catalogue.touch()
                await tier.moved()
        finally:
            await table.close()
        told += [f"{mended} documents were left by a run that was cut off"] if mended else []
        kept = out.kept + back.kept
        return out, back, told + ([f"{kept} documents changed while they moved, and stay"] if kept else [])

    async def _end_uploads(self, collection: str) -> list[str]:
        """Those of a run that was killed, while nobody else moves documents of the collection; what there is to say."""
        if not isinstance(self.spec.cold, Bucket):
            return []
        try:
            count = await asyncio.to_thread(uploads.abort, self.spec.cold, collection)
        except ServiceError as error:  # not every store can say it
            return [error.message]
        return [f"{count} uploads that a run left unfinished were removed"] if count else []

    async def _nothing(self) -> "Moved":
        room = await asyncio.to_thread(importlib.import_module, "server.knowledge.moving")
        moved: Moved = room.Moved()
        return moved
