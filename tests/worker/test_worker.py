"""A real child process behind a real socket: calls, crashes, hangs, restarts, and nothing left behind."""

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from server.worker import CallExpired, Worker, WorkerFailed, WorkerLimits, WorkerLost, WorkerUnavailable, restart

pytestmark = pytest.mark.anyio

SERVICE = "tests.worker.services:Counting"
QUICK = WorkerLimits(open=20.0, step=5.0, silence=0.5, ping_every=0.2)


def worker(config: bytes = b"", limits: WorkerLimits | None = None) -> Worker:
    return Worker("test", SERVICE, config, limits)


async def collect(one: Worker, body: bytes) -> list[bytes]:
    async with asyncio.timeout(30):
        return [item async for items in one.call(body) for item in items]


async def test_items_come_in_order_and_end() -> None:
    async with worker(b"x") as one:
        await one.wait_ready(30)
        assert one.ready_body == b"ready:x"
        assert await collect(one, b"count 500") == [str(n).encode() for n in range(1, 501)]


async def test_many_calls_at_once() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        answers = await asyncio.gather(*(collect(one, b"count %d" % n) for n in range(1, 33)))
        assert [len(answer) for answer in answers] == list(range(1, 33))


async def test_bodies_of_many_megabytes_both_ways() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        size = 20 * 2**20
        assert len((await collect(one, b"big %d" % size))[0]) == size
        assert await collect(one, b"length " + b"y" * size) == [str(size).encode()]


async def test_leaving_a_call_cancels_it_in_the_child() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        with one.call(b"count 1000000000") as call:
            async with asyncio.timeout(30):
                await anext(call)
        assert await collect(one, b"cancelled") == [b"1"]


async def test_what_is_printed_without_an_end_takes_no_memory() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        with pytest.raises(WorkerLost, match=r"exit code 7: x+") as lost:
            await collect(one, b"exit 3000000")
        assert len(str(lost.value)) < 5000


@pytest.mark.parametrize(("command", "why"), [(b"exit", "exit code 7"), (b"kill", "SIGKILL"), (b"raise", "a bug")])
async def test_a_crash_loses_the_calls_in_flight_and_the_worker_comes_back(command: bytes, why: str) -> None:
    async with worker() as one:
        await one.wait_ready(30)
        running = [asyncio.create_task(collect(one, b"count 1000000000")) for _ in range(16)]
        await asyncio.sleep(0)
        with pytest.raises(WorkerLost, match=why):
            await collect(one, command)
        for ended in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(ended, WorkerLost)
        await one.wait_ready(30)
        assert one.restarts == 1
        assert await collect(one, b"count 2") == [b"1", b"2"]


async def test_a_process_stuck_in_native_code_is_replaced() -> None:
    async with worker(limits=QUICK) as one:
        await one.wait_ready(30)
        with pytest.raises(WorkerLost, match="hung"):
            await collect(one, b"hang")
        await one.wait_ready(30)


async def test_a_service_that_cannot_open_is_given_up_with_its_reason() -> None:
    async with worker(b"fail") as one:
        with pytest.raises(WorkerFailed, match=r"weights\.bin: no such file"):
            await one.wait_ready(60)
        assert one.state == "failed"
        with pytest.raises(WorkerUnavailable):
            one.call(b"count 1")


async def test_a_service_that_was_told_something_wrong_is_not_started_again() -> None:
    async with worker(b"wrong") as one:
        with pytest.raises(WorkerFailed, match=r"weights\.gguf: cut off"):
            await one.wait_ready(60)
        assert one.restarts == 0


async def test_what_a_service_warns_of_is_in_the_gateways_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "hearth.worker")  # commands of other tests silence it
    async with worker() as one:
        await one.wait_ready(30)
    told = [(each.levelname, each.getMessage()) for each in caplog.records if each.name == "hearth.worker.test"]
    assert ("WARNING", "the fast one is not used") in told
    assert not any("nobody needs this" in text for _, text in told)


async def test_a_service_that_lacks_something_that_is_away_is_tried_until_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "LONGEST_DELAY", 0.01)
    async with worker(f"away {tmp_path / 'tried'}".encode()) as one:
        await one.wait_ready(60)
        assert one.restarts == 7 > restart.MOST_FAILED_STARTS


async def test_a_call_whose_time_is_over_is_cancelled_and_says_so() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        with one.call(b"count 1000000000") as call:
            await anext(call)
            call.expire_at(asyncio.get_running_loop().time())
            with pytest.raises(CallExpired):
                async for _ in call:
                    pass
        assert await collect(one, b"cancelled") == [b"1"]


async def test_stop_while_opening_and_in_the_middle_of_calls() -> None:
    slow = worker(b"slow")
    await slow.start()
    await slow.stop(grace=0.2)
    assert slow.state == "stopped"
    busy = worker()
    await busy.start()
    await busy.wait_ready(30)
    pid = busy.pid
    running = asyncio.create_task(collect(busy, b"count 1000000000"))
    await asyncio.sleep(0)
    await busy.stop()
    with pytest.raises(WorkerLost):
        await running
    assert not await asyncio.to_thread(Path(f"/proc/{pid}").exists)


async def test_a_stopped_worker_starts_again() -> None:
    one = worker()
    for _ in range(2):
        await one.start()
        await one.wait_ready(30)
        assert await collect(one, b"count 1") == [b"1"]
        await one.stop()


async def test_the_child_inherits_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_KEY", "sk-very-secret")
    async with worker() as one:
        await one.wait_ready(30)
        assert await collect(one, b"environment CLOUD_KEY") == [b""]
        assert await collect(one, b"environment HF_HUB_OFFLINE") == [b"1"]


async def test_an_interrupt_from_the_keyboard_is_the_gateways_to_handle() -> None:
    async with worker() as one:
        await one.wait_ready(30)
        assert one.pid is not None
        os.kill(one.pid, signal.SIGINT)
        assert await collect(one, b"count 1") == [b"1"]
