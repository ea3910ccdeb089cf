"""Documents that are put at the same time: one commit, an answer for each, and nobody's fault is another's."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine, Sequence
from contextvars import copy_context
from typing import Any

import pytest

from server.errors import HearthError, KnowledgeUnavailable
from server.knowledge import IngestReport
from server.knowledge.document import Document
from server.knowledge.store import Store
from server.knowledge.stored import Cut
from server.models.caller import CALLER, Caller
from tests.knowledge.conftest import Make
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio


def note(each: str, text: str) -> Document:
    return Document(id=each, uri=each, filename=each, text=text)


async def at_once(*puts: Coroutine[Any, Any, IngestReport]) -> list[IngestReport | BaseException]:
    return await asyncio.gather(*puts, return_exceptions=True)


async def test_what_is_put_at_once_is_one_commit_and_each_hears_of_its_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make(glob=None) as of:
        await of.upsert([note("first", "The first.")])
        commits: list[int] = []
        replace = Store.replace

        async def counted(self: Store, cuts: Sequence[Cut]) -> None:
            commits.append(len(cuts))
            await replace(self, cuts)

        monkeypatch.setattr(Store, "replace", counted)
        await at_once(*(of.upsert([note(f"n{n}", f"Number {n}.")]) for n in range(8)))
        assert commits == [8]
        reports = await at_once(of.upsert([note("n1", "Other words.")]), of.upsert([note("late", "A late one.")]))
        told = [(each.added, each.updated) for each in reports if isinstance(each, IngestReport)]
        assert told == [((), ("n1",)), (("late",), ())]
        assert {each.id for each in await of.documents()} == {"first", "late", *(f"n{n}" for n in range(8))}


async def test_a_document_at_fault_fails_nobody_else(make: Make) -> None:
    embedder = HashEmbedder()
    async with make(embedder, glob=None) as of:
        embedder.fail_on = "poison"
        good, bad, fine = await at_once(
            of.upsert([note("good", "Apples.")]),
            of.upsert([note("bad", "poison")]),
            of.upsert([note("fine", "Bears.")]),
        )
        assert isinstance(bad, KnowledgeUnavailable)
        assert not isinstance(good, HearthError)
        assert not isinstance(fine, HearthError)
        assert [each.id for each in await of.documents()] == ["fine", "good"]
        assert (await of.status()).state == "ready"


async def test_one_document_put_twice_ends_as_it_came_last(make: Make) -> None:
    async with make(glob=None) as of:
        await at_once(*(of.upsert([note("n", f"Words {n}.")]) for n in range(4)))
        held = await of.document("n")
        assert held is not None
        assert held.document.text == "Words 3."


async def test_each_caller_pays_for_its_own(make: Make) -> None:
    payers: list[str] = []

    class Counting(HashEmbedder):
        async def embed(self, inputs: Any, side: Any = "document") -> Any:
            payers.append(CALLER.get().name)
            return await super().embed(inputs, side)

    def put(caller: Caller, each: str) -> "asyncio.Task[IngestReport]":
        context = copy_context()
        context.run(CALLER.set, caller)
        return asyncio.create_task(of.upsert([note(each, each)]), context=context)

    ann, bob = Caller("ann"), Caller("bob")
    async with make(Counting(), glob=None) as of:
        payers.clear()
        await asyncio.gather(put(ann, "a"), put(ann, "b"), put(bob, "c"))
        assert payers == ["ann", "bob"]


async def test_who_leaves_before_the_commit_has_put_nothing(make: Make) -> None:
    async with make(glob=None) as of:
        async with of._writing._turn:
            gone = asyncio.create_task(of.upsert([note("gone", "Gone.")]))
            stays = asyncio.create_task(of.upsert([note("stays", "Stays.")]))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
        await stays
        assert [each.id for each in await of.documents()] == ["stays"]


class Held:
    """A store's commits, which wait until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.free = asyncio.Event(), asyncio.Event()
        replace = Store.replace

        async def held(store: Store, cuts: Sequence[Cut]) -> None:
            self.reached.set()
            await self.free.wait()
            await replace(store, cuts)

        monkeypatch.setattr(Store, "replace", held)


class Telling(HashEmbedder):
    """Tells when it has embedded a text."""

    def __init__(self) -> None:
        super().__init__()
        self.done: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.times: Counter[str] = Counter()

    async def embed(self, inputs: Any, side: Any = "document") -> Any:
        found = await super().embed(inputs, side)
        for text in inputs:
            self.times[text] += 1
            self.done[text].set()
        return found


async def test_while_one_group_is_written_the_next_is_embedded_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Telling()
    async with make(embedder, glob=None) as of, asyncio.timeout(30):
        held = Held(monkeypatch)
        one = asyncio.create_task(of.upsert([note("one", "Apples.")]))
        await held.reached.wait()
        two = asyncio.create_task(of.upsert([note("two", "Bears.")]))
        await embedder.done["Bears."].wait()
        assert not one.done()
        held.free.set()
        assert [(await each).added for each in (one, two)] == [("one",), ("two",)]
        assert embedder.times["Apples."] == embedder.times["Bears."] == 1
        assert (await of.search("Bears.", k=1, mode="vector")).hits[0].document_id == "two"


async def test_who_leaves_while_others_are_written_has_put_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Telling()
    async with make(embedder, glob=None) as of, asyncio.timeout(30):
        held = Held(monkeypatch)
        one = asyncio.create_task(of.upsert([note("one", "Apples.")]))
        await held.reached.wait()
        gone = asyncio.create_task(of.upsert([note("gone", "Gone.")]))
        await embedder.done["Gone."].wait()
        gone.cancel()
        await asyncio.wait([gone])
        held.free.set()
        await one
        await of.upsert([note("last", "Last.")])
        assert [each.id for each in await of.documents()] == ["last", "one"]


async def test_a_fault_that_took_long_is_not_waited_for_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = Telling()
    async with make(embedder, glob=None) as of, asyncio.timeout(30):
        asked: list[int] = []

        async def failing(inputs: Any, side: Any = "document") -> Any:
            asked.append(len(inputs))
            raise KnowledgeUnavailable("its deadline is over")

        monkeypatch.setattr("server.knowledge.group_commit._LONG_S", 0.0)
        monkeypatch.setattr(embedder, "embed", failing)
        found = await at_once(*(of.upsert([note(f"n{n}", f"Number {n}.")]) for n in range(3)))
        assert [type(each) for each in found] == [KnowledgeUnavailable] * 3
        assert asked == [3]
