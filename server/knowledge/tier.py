"""A collection's cold documents as its searches and ingests see them; opens nothing before it has to.

A search over both kinds of storage sees every document once. What local storage found or still has is never shown from
cold storage, so that a document that is on its way, or that has just come in another version, is in one of both.
"""

import asyncio
import importlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from config.bucket import Bucket
from server.errors import HearthError, InvalidValue, KnowledgeUnavailable
from server.knowledge.catalogue import Catalogue, View
from server.knowledge.search import Embedded, Legs, Query, Ranking, joined_legs, ranked, searched
from server.knowledge.stored import Held, Listed, Stored

if TYPE_CHECKING:
    from server.knowledge.cold import ColdTable
    from server.knowledge.moving import Mover
    from server.knowledge.reading import Reading
    from server.knowledge.shape import Shape
    from server.knowledge.store import Store

log = logging.getLogger(__name__)

TierName = Literal["hot", "warm", "cold"]

_TRIES = 5
_TOGETHER = 64
_PATIENCE_S = 20.0
"""How long a search that did not ask for cold storage waits for it."""
_NOTE_S = 60.0
_NOTE_MOST = 1000
"""Reads are written down after so many seconds, or documents."""
STORE_FAULTS = (OSError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Looked:
    """One search. `cold` are the documents that came from cold storage, `why` says why that was searched or was not."""

    legs: Legs
    ranking: Ranking
    tiers: tuple[TierName, ...]
    cold: frozenset[str]
    why: str


async def looked_at(store: "Reading", asked: Query, embed: Callable[[str], Awaitable[Embedded]]) -> Looked:
    """A search of local storage alone."""
    return Looked(*await searched(store, asked, embed), ("warm",), frozenset(), "")


class Tier:
    """The cold tier of one collection. Faults of cold storage are KnowledgeUnavailable."""

    def __init__(self, place: Path | Bucket | None, catalogue: Catalogue, *, weak: float, language: str) -> None:
        """`place` None has no documents in it, and reads are counted all the same. `weak` is the score below which the
        best chunk of local storage has cold storage searched too."""
        self.place = place
        self.catalogue = catalogue
        self.refusal: str | None = None
        """Why the place cannot be used; None where it can."""
        self.when_moved: Callable[[], None] | None = None
        """Told where documents moved, so that the local table is looked after."""
        self._weak = weak
        self._language = language
        self._table: ColdTable | None = None
        self._opening = asyncio.Lock()
        self._reads: Counter[str] = Counter()
        self._noted = time.monotonic()
        self._noting: asyncio.Task[None] | None = None

    async def close(self) -> None:
        await self.note_reads()
        if self._noting is not None:
            await asyncio.gather(self._noting, return_exceptions=True)
        table, self._table = self._table, None
        if table is not None:
            await table.close()

    def refuse(self, reason: str | None) -> None:
        """From now on the place cannot be used for this reason; with None it can."""
        if reason is not None and reason != self.refusal:
            log.error("collection %s: no cold storage: %s", self.catalogue.collection, reason)
        self.refusal = reason

    async def moved(self) -> None:
        """Documents came or went."""
        await self.catalogue.view()
        if self.when_moved is not None:
            self.when_moved()

    # ---- reads ------------------------------------------------------------------------------------------------------

    def read(self, ids: Iterable[str]) -> None:
        """Count documents that were found; written down now and then, so it costs nothing here."""
        self._reads.update(set(ids))
        due = len(self._reads) >= _NOTE_MOST or time.monotonic() - self._noted > _NOTE_S
        if due and (self._noting is None or self._noting.done()):
            self._noting = asyncio.create_task(self._note_quietly(), name="reads of documents")

    async def note_reads(self) -> None:
        """Write down what was counted."""
        reads, self._reads = self._reads, Counter()
        self._noted = time.monotonic()
        if reads:
            await self.catalogue.note(reads)

    async def _note_quietly(self) -> None:
        try:
            await self.note_reads()
        except HearthError as error:
            log.warning("reads of %s were not counted: %s", self.catalogue.collection, error)

    # ---- documents --------------------------------------------------------------------------------------------------

    async def known(self, ids: Collection[str] | None = None) -> dict[str, Stored]:
        """What the record says of cold documents: all, or those of `ids`."""
        cold = (await self.catalogue.view()).cold
        if ids is None:
            return {each: entry.stored for each, entry in cold.items()}
        return {each: cold[each].stored for each in ids if each in cold}

    async def listed(self) -> list[Listed]:
        return [entry.listed for entry in (await self.catalogue.view()).cold.values()]

    async def forget(self, ids: Collection[str]) -> None:
        """Another version of these was written, or they were deleted: their cold rows count no more."""
        await self.catalogue.forget(ids)

    async def held(self, store: "Store", each: str) -> Held | None:
        """One cold document put together from its rows; None where it is not cold."""
        entry = (await self.catalogue.view()).cold.get(each)
        if entry is None:
            return None
        table = await self._opened(store.shape)
        found = await self._asked(table.whole([each]))
        rows = found.drop_columns(["vector", "indexed"]).to_pylist()
        room = importlib.import_module("server.knowledge.rows")  # there already: a table is open
        return Held(room.restored(rows, store.types), len(rows), entry.listed.bytes) if rows else None

    async def vectors(self, store: "Store", ids: Sequence[str]) -> dict[str, list[float]]:
        table = await self._opened(store.shape)
        found: dict[str, list[float]] = await self._asked(table.vectors(ids))
        return found

    async def around(self, store: "Store", ids: Sequence[str], reach: int) -> dict[str, list[dict[str, Any]]]:
        table = await self._opened(store.shape)
        found: dict[str, list[dict[str, Any]]] = await self._asked(table.around(ids, reach))
        return found

    async def bring_back(self, store: "Store", ids: Sequence[str] | None = None) -> None:
        """Documents from cold storage into the table: those of `ids` that are cold, or all."""
        cold = (await self.catalogue.view()).cold
        if ids is not None and not any(each in cold for each in ids):
            return
        if not await self.catalogue.entries():
            return
        self.read(ids or ())
        table = await self.table(store.shape)
        try:
            room = await asyncio.to_thread(importlib.import_module, "server.knowledge.moving")
            mover: Mover = room.Mover(store, table, self.catalogue)
            if ids is None:
                await self._asked(mover.mend())
                ids = list((await self.catalogue.view()).cold)
            for at in range(0, len(ids), _TOGETHER):
                await self._asked(mover.warm(ids[at : at + _TOGETHER]))
        finally:
            await table.close()

    async def table(self, shape: "Shape") -> "ColdTable":
        """The table for rows of this shape, made where no document is cold yet. The caller closes it."""
        empty = not (await self.catalogue.view()).cold
        found: ColdTable | None = await self._asked(self._open(shape, make=empty))
        if found is None:
            raise self._lost()
        return found

    # ---- searches ---------------------------------------------------------------------------------------------------

    async def search(
        self,
        store: "Store",
        asked: Query,
        embed: Callable[[str], Awaitable[Embedded]],
        tiers: Collection[TierName] | None,
    ) -> Looked:
        """Search local storage, cold storage, or both; without `tiers` the cold one where the local answer is weak."""
        for _ in range(_TRIES):
            before = await self.catalogue.view()
            if tiers is None or {"warm", "hot"} & set(tiers):
                local, ranking = await searched(store, asked, embed)
            else:
                local = Legs(store, asked, embed)
                ranking = ranked(local, asked)
            why = self._reason(tiers, before, ranking, asked)
            if why is None:
                return Looked(local, ranking, ("warm",), frozenset(), "")
            try:
                await local.complete()
                async with asyncio.timeout(None if tiers is not None else _PATIENCE_S):
                    found = await self._beside(store, asked, local, embed, before)
            except (KnowledgeUnavailable, TimeoutError) as error:
                if tiers is not None:
                    raise
                log.warning("collection %s: %s", self.catalogue.collection, error or "cold storage takes too long")
                told = str(error) or f"it took longer than {_PATIENCE_S:.0f} s"
                return Looked(local, ranking, ("warm",), frozenset(), f"{why}; cold storage was left out: {told}")
            if found is not None:
                legs, cold = found
                reached: tuple[TierName, ...] = (
                    ("cold",)
                    if tiers is not None and set(tiers) == {"cold"}
                    else (
                        "warm",
                        "cold",
                    )
                )
                return Looked(legs, ranked(legs, asked), reached, cold, why)
        raise KnowledgeUnavailable(
            f"Documents of collection {self.catalogue.collection} are being brought back; try again.", retry_after=1
        )

    def _reason(self, tiers: Collection[TierName] | None, view: View, ranking: Ranking, asked: Query) -> str | None:
        """Why cold storage is to be searched; None where it is not."""
        if tiers is not None:
            return "asked for" if "cold" in tiers else None
        if not view.cold:
            return None
        if len(ranking.rows) < asked.k:
            return f"local storage has {len(ranking.rows)} of {asked.k} chunks"
        best = max(score for _, score, _ in ranking.rows)
        return f"the best score in local storage is {best:.3f}, below {self._weak:g}" if best < self._weak else None

    async def _beside(
        self, store: "Store", asked: Query, local: Legs, embed: Callable[[str], Awaitable[Embedded]], before: View
    ) -> tuple[Legs, frozenset[str]] | None:
        """What both found. None where documents left cold storage meanwhile: they may have been missed in both."""
        now = await self.catalogue.view()
        if not now.cold and not before.cold:
            return local, frozenset()
        table = await self._opened(store.shape)
        await self._asked(table.follow(now.moves))

        async def embedded(text: str) -> Embedded:
            return local.embedded or await embed(text)

        cold = Legs(table, asked, embedded)
        started = time.perf_counter()
        await self._asked(cold.run())
        local.timings_ms["cold"] = (time.perf_counter() - started) * 1000
        found = cold.documents()
        here = await store.documents(sorted(found)) if found else {}
        now = await self.catalogue.view()
        if before.cold.keys() - now.cold.keys():
            return None
        # One that is here in another version was written just now. In the same one it is on its way: the search of
        # local storage may have been too early for it, or too late.
        counting = found & now.cold.keys()
        newer = {each for each in counting & here.keys() if here[each].hash != now.cold[each].stored.hash}
        shown = frozenset(counting - newer - local.documents())
        return joined_legs(local, cold, shown), shown

    # ---- the table --------------------------------------------------------------------------------------------------

    async def _opened(self, shape: "Shape") -> "ColdTable":
        async with self._opening:
            if self._table is not None and not self._table.shape.is_as(shape):
                await self._table.close()
                self._table = None
            if self._table is None:
                self._table = await self._asked(self._open(shape, make=False))
        if self._table is None:
            raise self._lost()
        return self._table

    def _lost(self) -> KnowledgeUnavailable:
        name = self.catalogue.collection
        return KnowledgeUnavailable(f"{self._where} lacks the cold documents of collection {name}.", retry_after=30)

    async def _open(self, shape: "Shape", *, make: bool) -> "ColdTable | None":
        if self.refusal is not None:
            raise KnowledgeUnavailable(self.refusal, retry_after=30)
        if self.place is None:
            raise KnowledgeUnavailable("The recipe declares no cold storage (policies.tiering.cold).", retry_after=30)
        room = await asyncio.to_thread(importlib.import_module, "server.knowledge.cold")
        table: ColdTable | None = await room.ColdTable.open(
            self.place, self.catalogue.collection, shape, make=make, language=self._language
        )
        return table

    async def _asked(self, answer: "Awaitable[Any]") -> Any:
        try:
            return await answer
        except STORE_FAULTS as error:
            first = str(error).splitlines()[0][:300]
            raise KnowledgeUnavailable(f"{self._where}: {first}", retry_after=30) from error

    @property
    def _where(self) -> str:
        return f"Cold storage in {self.place.url if isinstance(self.place, Bucket) else self.place}"


def checked(tiers: Collection[TierName] | None, tier: Tier | None, as_of: int | None) -> None:
    """Raises InvalidValue where a collection cannot be searched in these."""
    if tiers is None or "cold" not in tiers:
        return
    if tier is None or tier.place is None:
        raise InvalidValue("This collection has no cold tier: the recipe declares none for it.", param="tiers")
    if as_of is not None:
        raise InvalidValue("Earlier versions are in local storage alone: leave out `as_of` or cold.", param="tiers")
