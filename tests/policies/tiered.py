"""A collection with a cold tier, and runs of the policy at moments that tests choose.

As a program it moves documents and back in processes that are killed at one call each, and says what was left:
python -m tests.policies.tiered FOLDER
"""

import asyncio
import os
import shutil
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

from config.bucket import Bucket
from config.knowledge import ChunkSpec, CollectionSpec, FilesSource, SearchSpec
from config.policy import TieringSpec
from server.knowledge import Catalogue, Collection, Document, Found, QueryCache, Tier
from server.knowledge.cold import ColdTable
from server.knowledge.store import Store
from server.policies import Report
from server.policies.tiering.policy import TieringPolicy
from server.state import State
from tests.knowledge.hashing import HashEmbedder
from tests.policies.forking import ended, forked

DAY = 86_400.0
START = 1_800_000_000.0
"""When tests begin, by their clock."""
NAME = "handbook"


class Tiered:
    """One process's view. `now` is what the policy takes for the time."""

    def __init__(self, collection: Collection, tier: Tier, state: State, folder: Path, place: Path | Bucket) -> None:
        self.collection = collection
        self.tier = tier
        self.embedder = collection._embedder
        self.now = START
        spec = TieringSpec.model_construct(cold=place, after=timedelta(days=30), collections=None)
        self.policy = TieringPolicy(spec, folder, state, {NAME: tier})

    async def run(self, days: float = 0.0) -> Report:
        """A run, so many days later."""
        self.now += days * DAY
        return await self.policy.run(lambda _: None)

    async def used(self, *documents: str) -> None:
        """They were found just now, by the tests' clock."""
        await self.tier.catalogue.note(dict.fromkeys(documents, 1))

    async def cold(self) -> set[str]:
        return set((await self.tier.catalogue.view()).cold)

    async def local(self) -> set[str]:
        async with self.collection._reading("read") as store:
            return set(await store.documents())

    async def search(self, query: str, tiers: Sequence[Any] | None = None, **asked: Any) -> Found:
        return await self.collection.search(query, tiers=tiers, **asked)


@asynccontextmanager
async def tiered(
    folder: Path,
    place: Path | Bucket | None = None,
    *,
    salt: str = "",
    weak: float = 0.4,
    files: Path | None = None,
    cache: QueryCache | None = None,
    dimension: int = 64,
) -> AsyncIterator[Tiered]:
    """The collection under `folder`, open until the block ends; `salt` makes its model another one."""
    place = place or folder / "cold"
    spec = CollectionSpec(
        embed="embed",
        chunk=ChunkSpec(tokens=30, overlap=5),
        search=SearchSpec(k=5),
        attributes={"team": "string"},
        sources=() if files is None else (FilesSource.model_construct(files=str(files / "*.md"), watch=False),),
    )
    async with State.open(folder / "state.db") as state:
        tier = Tier(place, Catalogue(state, NAME, clock=lambda: each.now), weak=weak, language="english")
        at = folder / "knowledge" / NAME
        collection = Collection(NAME, spec, HashEmbedder(salt=salt, dimension=dimension), at, tier=tier, cache=cache)
        each = Tiered(collection, tier, state, folder, place)
        async with collection:
            yield each


def document(n: int, more: str = "") -> Document:
    """Of several chunks, about a word of its own."""
    text = f"# Page {n}\n\n" + "\n\n".join(
        f"Paragraph {part} of page {n} tells of subject{n} and what part{part} is for, word by word {more}."
        for part in range(4)
    )
    return Document(id=f"d{n}", uri=f"d{n}", filename=f"d{n}.md", text=text, attributes={"team": f"team{n % 3}"})


def shown(found: Found) -> list[tuple[str, str, float]]:
    return sorted((hit.document_id, hit.id, round(hit.score, 5)) for hit in found.hits)


# ---- killed ---------------------------------------------------------------------------------------------------------

CALLS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (Catalogue, ("begin", "cooled", "warming", "left", "forget", "drop")),
    (ColdTable, ("put", "delete", "settle")),
    (Store, ("take_out", "bring")),
)
"""What leaves something behind."""
_DOCUMENTS = 6


async def fill(folder: Path) -> None:
    async with tiered(folder) as each:
        await each.collection.push([document(n) for n in range(_DOCUMENTS)], [])
        await each.run()
        await each.used("d5")


async def move(folder: Path) -> None:
    """Most documents go; one comes back; one of the cold changes, another is deleted."""
    async with tiered(folder) as each:
        await each.run(days=40)
        await each.used("d1")
        await each.collection.push([document(2, "anew")], ["d3"])
        await each.run(days=1)


async def faults(folder: Path) -> list[str]:
    """What is wrong, before and after another run."""
    found = []
    async with tiered(folder) as each:
        for moment in ("when it was killed", "after the next run"):
            for n in range(_DOCUMENTS):
                hits = (await each.search(f"subject{n}", ("warm", "cold"), k=60)).hits
                ids = [hit.id for hit in hits]
                if len(ids) != len(set(ids)):
                    found.append(f"{moment}: chunks come twice")
                of_it = [hit for hit in hits if hit.document_id == f"d{n}"]
                told = {hit.text.rpartition("word by word")[2].strip() for hit in of_it if "word by word" in hit.text}
                versions = {"anew" in text for text in told}
                if not of_it and n != 3:
                    found.append(f"{moment}: d{n} is lost")
                if len(versions) > 1:
                    found.append(f"{moment}: d{n} is there in two versions")
            listed = [one.id for one in await each.collection.documents()]
            if len(listed) != len(set(listed)) or not {"d0", "d1", "d2", "d4", "d5"} <= set(listed):
                found.append(f"{moment}: listed are {listed}")
            await each.run(days=1)
        if doubled := await each.local() & await each.cold():
            found.append(f"afterwards {doubled} are in both places")
        entries = {entry.document for entry in await each.tier.catalogue.entries()}
        if entries != await each.cold():
            found.append(f"afterwards {entries} are on record")
        table = await each.tier.table(each.collection._serving.store.shape)  # type: ignore[union-attr]
        rows = set(await table.documents())
        await table.close()
        if rows != entries:
            found.append(f"afterwards cold storage has {rows}")
    return found


def _deadly(at: int, count: Callable[[], int]) -> None:
    """Have the process killed after its call number `at`; 0 is before the first."""
    if not at:
        os.kill(os.getpid(), signal.SIGKILL)
    for kind, names in CALLS:
        for name in names:
            setattr(kind, name, _patched(getattr(kind, name), at, count))


def _patched(call: Callable[..., Any], at: int, count: Callable[[], int]) -> Callable[..., Any]:
    @wraps(call)
    async def wrapped(*given: Any, **named: Any) -> Any:
        result = await call(*given, **named)
        if count() == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def _life(folder: Path, at: int) -> None:
    counted = iter(range(1, 1_000_000))
    last = 0

    def count() -> int:
        nonlocal last
        last = next(counted)
        return last

    _deadly(at, count)
    asyncio.run(move(folder))
    print(f"{last} points", flush=True)


def _look(folder: Path, at: int) -> None:
    found = asyncio.run(faults(folder))
    print(f"killed at {at}: {'; '.join(found) or 'nothing lost, nothing doubled'}", flush=True)


def main(root: Path, every: int) -> None:
    """Kill at each point, or at every so manyth."""
    begun = root / "begun"
    begun.mkdir()
    assert ended(forked(lambda: asyncio.run(fill(begun)))) == 0
    at = 0
    while True:
        folder = root / str(at)
        shutil.copytree(begun, folder)
        code = ended(forked(lambda folder=folder, at=at: _life(folder, at)))  # type: ignore[misc]
        assert code in (0, -signal.SIGKILL), code
        assert ended(forked(lambda folder=folder, at=at: _look(folder, at))) == 0  # type: ignore[misc]
        if code == 0:
            return
        at += every


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "lancedb fork support")  # nothing has begun when this forks
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
