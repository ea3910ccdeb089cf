"""A service in an event loop: calls side by side, cancelled by themselves, and an end that is told."""

import asyncio

import pytest

from server.worker import Worker, WorkerFailed, WorkerLost

pytestmark = pytest.mark.anyio


def worker(config: bytes = b"", **environment: str) -> Worker:
    return Worker("test", "tests.worker.services:Waiting", config, environment=environment)


async def collect(one: Worker, body: bytes) -> list[bytes]:
    async with asyncio.timeout(30):
        return [item async for items in one.call(body) for item in items]


async def test_calls_wait_side_by_side_and_one_is_cancelled_alone() -> None:
    async with worker(b"x", HEARTH_TEST="told") as one:
        await one.wait_ready(30)
        assert one.ready_body == b"ready:x"
        assert await collect(one, b"early 3") == [b"0", b"1", b"2", b"last"]
        assert await collect(one, b"environment HEARTH_TEST") == [b"told"]
        with one.call(b"wait") as second:
            with one.call(b"wait") as first:
                async with asyncio.timeout(30):
                    assert await anext(first) == await anext(second) == [b"begun"]
            assert await collect(one, b"early 0") == [b"last"]
            assert await collect(one, b"seen") == [b"1"]


@pytest.mark.parametrize(("command", "why"), [(b"raise", "a bug in a call"), (b"over", "the server has gone")])
async def test_its_end_is_told_to_the_calls_and_it_comes_back(command: bytes, why: str) -> None:
    async with worker() as one:
        await one.wait_ready(30)
        waiting = one.call(b"wait")
        async with asyncio.timeout(30):
            await anext(waiting)
            with one.call(command), pytest.raises(WorkerLost, match=why):
                await anext(waiting)
        await one.wait_ready(30)
        assert await collect(one, b"early 0") == [b"last"]


async def test_what_cannot_start_is_not_tried_again() -> None:
    async with worker(b"wrong") as one:
        with pytest.raises(WorkerFailed, match="there is no such server"):
            await one.wait_ready(30)
        assert one.restarts == 0


async def test_one_is_ended_at_once_by_its_name() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        waiting = one.call(b"wait")
        async with asyncio.timeout(30):
            await anext(waiting)
            one.kill("it was too slow")
            with pytest.raises(WorkerLost, match="it was too slow"):
                await anext(waiting)
