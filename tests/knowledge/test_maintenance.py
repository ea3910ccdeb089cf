"""Maintenance: due by measure, gentle on the disk, invisible to readers, loud when it fails."""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from server.knowledge import store as store_module
from server.knowledge.maintenance import Maintenance, Measure, tail
from server.knowledge.optimizer import Optimizer
from server.knowledge.store import Store
from tests.knowledge.tables import cut, filled, nearest, shape, units

pytestmark = pytest.mark.anyio

_MIB = 1024**2


@pytest.mark.parametrize(
    ("fragments", "unindexed", "commits", "slow"),
    [(1, 0, 0, False), (63, 4095, 19, False), (64, 0, 0, True), (1, 4096, 0, True), (1, 0, 20, True)],
)
def test_compaction_is_gated(fragments: int, unindexed: int, commits: int, slow: bool) -> None:
    assert Measure(fragments=fragments, unindexed=unindexed, commits=commits).is_slow is slow


@pytest.mark.parametrize(
    ("live", "disk", "retention"),
    [
        (100 * _MIB, 110 * _MIB, timedelta(hours=1)),
        (100 * _MIB, 140 * _MIB, timedelta(seconds=10)),
        (1 * _MIB, 3 * _MIB, timedelta(hours=1)),
        (1 * _MIB, 6 * _MIB, timedelta(seconds=10)),
    ],
)
def test_history_is_kept_an_hour_unless_it_outgrows_the_table(live: int, disk: int, retention: timedelta) -> None:
    assert Measure(live=live, disk=disk).retention == retention


@pytest.mark.parametrize(
    ("sizes", "joined"),
    [
        ({}, []),
        ({0: 100}, []),
        ({0: 1000, 1: 1, 2: 2}, [1, 2]),
        ({0: 1000, 1: 100}, [1]),
        ({0: 1000, 1: 200, 2: 100, 3: 100}, [2, 3]),
        ({0: 1000} | dict.fromkeys(range(1, 6), 100), []),
        (dict.fromkeys(range(100), 1), []),
    ],
)
def test_small_fragments_are_joined_apart_from_large_ones(sizes: dict[int, int], joined: list[int]) -> None:
    assert tail(sizes) == joined


async def test_a_small_fragment_of_many_rows_is_joined_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a million rows a small fragment has a hundred thousand, more than LanceDB joins in the memory it takes."""
    monkeypatch.setattr(store_module, "_JOINED_ROWS", 30)
    store = await filled(tmp_path, 1, chunks=2000)
    await store.replace([cut("b", 100, seed=1)])  # one fragment
    sizes: list[int] = []
    merge = store._table.merge_insert

    def watched(on: str) -> Any:
        builder = merge(on)
        execute = builder.execute

        async def counted(data: Any) -> Any:
            sizes.append(data.num_rows)
            return await execute(data)

        builder.execute = counted
        return builder

    monkeypatch.setattr(store._table, "merge_insert", watched)
    await store.compact(timedelta(hours=1))
    assert sizes == [30, 30, 30, 10]
    assert await store.count() == (2, 2100)
    assert await nearest(store, units(100, seed=1)[57], 1) == ["b"]
    await store.close()


async def test_rows_that_come_singly_do_not_make_it_write_the_table_again(tmp_path: Path) -> None:
    store = await filled(tmp_path, 1, chunks=4000)
    await store.compact(timedelta(hours=1))
    big = max((tmp_path / "chunks_1.lance" / "data").iterdir(), key=lambda file: file.stat().st_size)
    for n in range(3):
        for k in range(1, 23):
            await store.replace([cut(f"d{k}", 1, f"round{n}", seed=n * 100 + k)])
        assert (await store.measure()).is_slow
        await store.compact(timedelta(milliseconds=1))
        assert (await store.measure()).fragments <= 3
        assert (await store.measure()).unindexed == 0
    assert big.exists()
    assert await store.count() == (23, 4022)
    words = await store.matching("round2", None, 100)
    assert words is not None and words.num_rows == 22
    assert await nearest(store, units(1, seed=205)[0], 1) == ["d5"]
    await store.close()


async def test_readers_in_another_store_see_no_fault_while_versions_are_cleaned_up(tmp_path: Path) -> None:
    store = await filled(tmp_path, 40)
    await store.index_words()
    reader = await Store.open(tmp_path, shape(), hot=0)
    done = asyncio.Event()

    async def read() -> int:
        reads = 0
        while not done.is_set():
            assert len(await nearest(reader, units(1)[0], 100)) == 40
            found = await reader.matching("word", None, 100)
            assert found is not None and found.num_rows == 40
            reads += 1
        return reads

    async def write() -> None:
        for n in range(40):
            await store.replace([cut(f"d{n % 40}", 1, seed=n)])
            if n % 10 == 9:
                await store.compact(timedelta(milliseconds=1))
        done.set()

    _, reads = await asyncio.gather(write(), read())
    assert reads > 0
    await store.close()
    await reader.close()


class Broken:
    """A table whose disk is full, until it is not."""

    def __init__(self, rows: int = 0) -> None:
        self.full = True
        self.compacted = asyncio.Event()
        self.elsewhere: list[bool] = []
        self._rows = rows

    async def measure(self) -> Measure:
        return Measure(commits=20, rows=self._rows)

    async def lacks_index(self) -> bool:
        return False

    async def compact(self, retention: timedelta, optimizer: Optimizer | None = None) -> float:
        self.elsewhere.append(optimizer is not None)
        if self.full:
            raise OSError("no space left on device")
        self.compacted.set()
        return 0.0


async def test_a_fault_is_counted_and_told_until_a_pass_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    table = Broken()
    maintenance = Maintenance(table, "handbook")
    await maintenance.keep()
    assert maintenance.error == "maintenance failed: no space left on device"
    assert maintenance.failures == 1
    assert "collection handbook: maintenance failed" in caplog.text
    table.full = False
    await maintenance.keep()
    assert (maintenance.error, maintenance.failures) == (None, 1)


async def test_a_write_wakes_it_and_closing_does_what_is_due(tmp_path: Path) -> None:
    table = Broken()
    table.full = False
    maintenance = Maintenance(table, "handbook")
    maintenance.start()
    await asyncio.wait_for(table.compacted.wait(), 5)
    table.compacted.clear()
    maintenance.wake()
    await asyncio.wait_for(maintenance.close(), 10)
    assert table.compacted.is_set()


@pytest.mark.parametrize(("rows", "elsewhere"), [(0, [False, True]), (2000, [True, True])])
async def test_a_large_table_or_a_second_pass_at_once_takes_a_process_of_its_own(
    rows: int, elsewhere: list[bool]
) -> None:
    table = Broken(rows)
    table.full = False
    maintenance = Maintenance(table, "handbook", Optimizer())
    await maintenance.keep()
    await maintenance.keep()
    assert table.elsewhere == elsewhere


async def test_the_process_does_what_takes_long_and_makes_way_for_others(tmp_path: Path) -> None:
    store = await filled(tmp_path, 40)
    for n in range(12):
        await store.replace([cut(f"e{n}", 1, seed=n)])
    before = await store.measure()
    async with Optimizer() as optimizer:
        await store.compact(timedelta(hours=1), optimizer)
        worker = optimizer.worker
        assert worker is not None and worker.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, worker.pid) == min(19, 10 + os.getpriority(os.PRIO_PROCESS, 0))
    after = await store.measure()
    assert (before.fragments, after.fragments) == (13, 1)
    assert not await store.lacks_index() and after.unindexed == 0
    # What was written meanwhile and is known without a look at the table still is: another process only rearranged it.
    assert set(await store.known(["e0", "new"])) == {"e0"}
    assert optimizer.worker is None
    await store.close()


async def test_a_process_that_dies_is_told_and_there_is_another(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    async with Optimizer() as optimizer:
        assert await optimizer.optimize(tmp_path, store.name, {}, timedelta(hours=1)) is not None
        assert optimizer.worker is not None
        optimizer.worker.kill("it hung")
        with suppress(RuntimeError):  # lost with the process, or asked of the next one
            await optimizer.optimize(tmp_path, store.name, {}, timedelta(hours=1))
        assert await optimizer.optimize(tmp_path, store.name, {}, timedelta(hours=1)) is not None
    await store.close()


async def test_writes_that_come_one_after_another_start_the_process_before_there_is_work(tmp_path: Path) -> None:
    store = await filled(tmp_path, 3)
    async with Optimizer() as optimizer:
        kept = Maintenance(store, "many", optimizer)
        for _ in range(7):
            kept.wake()
        assert optimizer.worker is None
        kept.wake()
        async with asyncio.timeout(60):
            await asyncio.gather(*optimizer._background)
        worker = optimizer.worker
        assert worker is not None and worker.state == "ready"
        kept.wake()
        assert await optimizer.optimize(tmp_path, store.name, {}, timedelta(hours=1)) is not None
        assert optimizer.worker is worker
    assert worker.state == "stopped"
    await store.close()


async def test_the_process_ends_once_nobody_needs_it(tmp_path: Path) -> None:
    async with Optimizer(idle_s=0.0) as optimizer:
        with pytest.raises(RuntimeError, match="gone"):
            await optimizer.optimize(tmp_path, "gone", {}, timedelta(hours=1))
        worker = optimizer.worker
        async with asyncio.timeout(20):
            while worker is not None and worker.state != "stopped":
                await worker.change.wait()
        assert optimizer.worker is None
