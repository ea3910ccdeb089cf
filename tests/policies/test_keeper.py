"""Policies run at their times, one run at a time, and what became of each is remembered across restarts."""

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.schedule import Scheduled
from server.errors import Conflict, NotFound, ServiceError
from server.policies import Keeper, Report, Run, Tell
from server.policies.history import History, process_mark
from server.state import State

pytestmark = pytest.mark.anyio

PATIENCE = 20.0
SOON = Scheduled(every=timedelta(milliseconds=1))


@pytest.fixture
async def state(tmp_path: Path) -> AsyncIterator[State]:
    async with State.open(tmp_path / "state.db") as state:
        yield state


class Errand:
    """A policy whose runs wait for the test. `fault` is raised by the next run."""

    name = "errand"

    def __init__(self, spec: Scheduled) -> None:
        self.spec = spec
        self.began = asyncio.Semaphore(0)
        self.go = asyncio.Semaphore(0)
        self.fault: Exception | None = None
        self.cancelled = False

    async def run(self, tell: Tell) -> Report:
        tell("half way")
        self.began.release()
        try:
            await self.go.acquire()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.fault is not None:
            raise self.fault
        return Report("all done", {"bytes": 3}, ("one thing",))


async def ended(keeper: Keeper) -> Run:
    """The first run of all, once it has ended."""
    async with asyncio.timeout(PATIENCE):
        while True:
            runs = await keeper.runs("errand", 100)  # gives the loop its turn
            if runs and runs[-1].ended is not None:
                return runs[-1]


async def test_a_due_run_begins_by_itself_and_is_remembered(state: State) -> None:
    errand = Errand(SOON)
    async with Keeper.keeping([errand], state, "here") as keeper:
        async with asyncio.timeout(PATIENCE):
            await errand.began.acquire()
        errand.go.release()
        first = await ended(keeper)
        assert (first.outcome, first.report) == ("done", Report("all done", {"bytes": 3}, ("one thing",)))
    [*_, remembered] = await History(state).runs("errand", 100)
    assert remembered == first


async def test_one_run_at_a_time(state: State) -> None:
    errand = Errand(Scheduled())
    async with Keeper.keeping([errand], state, "here") as keeper:
        running = asyncio.create_task(keeper.run("errand"))
        await errand.began.acquire()
        with pytest.raises(Conflict, match="half way"):
            await keeper.run("errand")
        errand.go.release()
        assert (await running).outcome == "done"
        with pytest.raises(NotFound, match="This server has: errand"):
            await keeper.run("backup")


async def test_whoever_waits_may_leave(state: State) -> None:
    errand = Errand(Scheduled())
    async with Keeper.keeping([errand], state, "here") as keeper:
        waiting = asyncio.create_task(keeper.run("errand"))
        await errand.began.acquire()
        waiting.cancel()
        errand.go.release()
        run = await ended(keeper)
        assert run.outcome == "done" and not errand.cancelled


@pytest.mark.parametrize("fault", [ServiceError("the disk is full"), RuntimeError("a bug")])
async def test_a_failure_is_remembered_and_tried_again(state: State, fault: Exception) -> None:
    errand = Errand(Scheduled(every=timedelta(hours=1)))
    errand.fault = fault
    async with Keeper.keeping([errand], state, "here") as keeper:
        errand.go.release()
        run = await keeper.run("errand")
        assert run.outcome == "failed" and str(fault) in (run.error or "")
        [kept] = list(keeper)
        assert kept.due is not None and run.ended is not None
        assert (kept.due.at - run.ended, kept.due.attempt) == (timedelta(minutes=1), 2)


async def test_what_ends_with_the_server_is_known_as_lost_by_the_next(state: State) -> None:
    errand = Errand(Scheduled(every=timedelta(hours=1)))
    async with Keeper.keeping([errand], state, "here") as keeper:
        left = asyncio.create_task(keeper.run("errand"))
        await errand.began.acquire()
    assert errand.cancelled
    await asyncio.gather(left, return_exceptions=True)
    async with Keeper.keeping([Errand(errand.spec)], state, "here") as keeper:
        [kept] = list(keeper)
        assert kept.last is not None and kept.last.outcome == "lost" and kept.due is not None and kept.due.attempt == 2


async def test_times_that_did_not_change_do_not_begin_anew(state: State) -> None:
    spec = Scheduled(every=timedelta(hours=1))
    async with Keeper.keeping([Errand(spec)], state, "here") as keeper:
        [first] = [kept.due for kept in keeper]
    async with Keeper.keeping([Errand(spec)], state, "here") as keeper:
        assert [kept.due for kept in keeper] == [first]
    async with Keeper.keeping([Errand(Scheduled(every=timedelta(hours=2)))], state, "here") as keeper:
        assert [kept.due for kept in keeper] != [first]


async def test_a_database_that_fails_makes_no_run_begin_again_at_once(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    errand = Errand(Scheduled(every=timedelta(hours=1)))
    begun = asyncio.Semaphore(0)

    async def full(history: History, policy: str, attempt: int) -> Run:
        begun.release()
        raise ServiceError("The database state.db failed: database or disk is full.")

    async def long_ago(history: History, policy: str, times: str) -> datetime:
        return datetime.now(UTC) - timedelta(days=1)

    monkeypatch.setattr(History, "since", long_ago)
    with monkeypatch.context() as broken:
        broken.setattr(History, "begin", full)
        async with Keeper.keeping([errand], state, "here") as keeper:
            [kept] = list(keeper)
            async with asyncio.timeout(PATIENCE):
                await begun.acquire()
            for _ in range(20):
                await keeper.runs("errand", 1)  # gives the loop its turn
            assert begun.locked(), "it was not tried again"
            assert kept.last is not None and kept.last.ended is not None and "disk is full" in (kept.last.error or "")
            assert kept.due is not None
            assert (kept.due.at - kept.last.ended, kept.due.attempt) == (timedelta(minutes=1), 2)
    async with Keeper.keeping([errand], state, "here"):
        async with asyncio.timeout(PATIENCE):
            await errand.began.acquire()


async def test_a_run_of_another_process_that_lives_goes_on_and_is_lost_with_it(state: State) -> None:
    errand = Errand(Scheduled(every=timedelta(hours=1)))
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=asyncio.subprocess.PIPE)
    try:
        beside = History(state)
        beside._owner = f"{process_mark(server.pid)}/beside"
        await beside.begin("errand", 1)
        async with Keeper.asked([errand], state) as keeper:
            [kept] = list(keeper)
            assert kept.last is not None and kept.last.outcome is None and kept.last.ended is None
    finally:
        server.kill()
        await server.wait()
    async with Keeper.asked([errand], state) as keeper:
        [kept] = list(keeper)
        assert kept.last is not None and kept.last.outcome == "lost"
