"""The state database: migrations, transactions, and what is told where it cannot be opened."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from server.errors import ServiceError
from server.state import State, Tables

pytestmark = pytest.mark.anyio

FIRST = Tables("notes", ("CREATE TABLE notes (id TEXT PRIMARY KEY, text TEXT NOT NULL)",))
SECOND = Tables("notes", (*FIRST.steps, "ALTER TABLE notes ADD COLUMN read INTEGER NOT NULL DEFAULT 0"))


def put(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO notes (id, text) VALUES ('a', 'first')")


def every(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT * FROM notes ORDER BY id").fetchall()


async def test_rows_outlive_the_process_and_take_further_steps(tmp_path: Path) -> None:
    async with State.open(tmp_path / "data" / "state.db") as state:
        await state.run(FIRST, put)
    async with State.open(tmp_path / "data" / "state.db") as state:
        assert await state.run(SECOND, every) == [("a", "first", 0)]


async def test_a_fault_undoes_the_whole_piece_of_work(tmp_path: Path) -> None:
    def broken(connection: sqlite3.Connection) -> None:
        put(connection)
        raise ValueError("half way")

    async with State.open(tmp_path / "state.db") as state:
        with pytest.raises(ValueError, match="half way"):
            await state.run(FIRST, broken)
        assert await state.run(FIRST, every) == []


async def test_tables_of_a_newer_version_are_left_alone(tmp_path: Path) -> None:
    async with State.open(tmp_path / "state.db") as state:
        await state.run(SECOND, put)
    async with State.open(tmp_path / "state.db") as state:
        with pytest.raises(ServiceError, match="are of version 2; this Hearth knows 1"):
            await state.run(FIRST, every)


async def test_work_of_a_cancelled_task_is_done_whole(tmp_path: Path) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        put(connection)

    async with State.open(tmp_path / "state.db") as state:
        task = asyncio.create_task(state.run(FIRST, slow))
        await asyncio.wait_for(started.wait(), 10)
        task.cancel()
        assert await state.run(FIRST, every) == [("a", "first")]


async def test_a_file_that_is_no_database_is_a_clear_fault(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ServiceError, match=r"The database .*state\.db failed: file is not a database"):
        async with State.open(path):
            pass
