"""The runs of policies as state.db keeps them: when each began and how it ended."""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from server.policies.report import Report, Run
from server.state import State, Tables

_TABLES = Tables(
    "policy",
    (
        "CREATE TABLE policy_seen (name TEXT PRIMARY KEY, times TEXT NOT NULL, since TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE policy_run (number INTEGER PRIMARY KEY AUTOINCREMENT, policy TEXT NOT NULL, began TEXT NOT NULL, "
        "ended TEXT, outcome TEXT, report TEXT, error TEXT, attempt INTEGER NOT NULL)",
        "CREATE INDEX policy_run_of ON policy_run (policy, number)",
        "ALTER TABLE policy_run ADD COLUMN owner TEXT NOT NULL DEFAULT ''",
    ),
)
_COLUMNS = "number, policy, began, ended, outcome, report, error, attempt"
_MOST = 200
"""Runs of one policy that are remembered."""

_living: set[str] = set()
"""The owners in this process whose runs may still end."""

_reports = msgspec.json.Decoder(Report)


class History:
    """What is remembered of all policies of one data directory."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._owner = f"{process_mark(os.getpid())}/{secrets.token_hex(4)}"

    @contextmanager
    def living(self) -> Iterator[None]:
        """Runs that this begins are its own until the block ends; then they are lost, if nobody ended them."""
        _living.add(self._owner)
        try:
            yield
        finally:
            _living.discard(self._owner)

    async def since(self, policy: str, times: str) -> datetime:
        """When the policy was first seen with these times, which is now where they are others than before."""

        def work(connection: sqlite3.Connection) -> datetime:
            row = connection.execute("SELECT times, since FROM policy_seen WHERE name = ?", (policy,)).fetchone()
            if row is not None and row[0] == times:
                return datetime.fromisoformat(row[1])
            now = datetime.now(UTC)
            seen = (policy, times, now.isoformat())
            connection.execute("INSERT OR REPLACE INTO policy_seen VALUES (?, ?, ?)", seen)
            return now

        return await self._state.run(_TABLES, work)

    async def lost(self) -> list[Run]:
        """End, as lost, the runs that nobody ended: the process that began them did not live to. Those of one that
        lives, such as a server beside this command, go on."""

        def work(connection: sqlite3.Connection) -> list[Run]:
            rows = connection.execute(f"SELECT owner, {_COLUMNS} FROM policy_run WHERE ended IS NULL").fetchall()
            lost = [_run(*row) for owner, *row in rows if not _lives(owner)]
            connection.executemany(
                "UPDATE policy_run SET ended = ?, outcome = 'lost', error = ? WHERE number = ?",
                [
                    (datetime.now(UTC).isoformat(), "The server ended in the middle of this run.", run.number)
                    for run in lost
                ],
            )
            return lost

        return await self._state.run(_TABLES, work)

    async def begin(self, policy: str, attempt: int) -> Run:
        began = datetime.now(UTC)

        def work(connection: sqlite3.Connection) -> Run:
            values = (policy, began.isoformat(), attempt, self._owner)
            made = connection.execute(
                "INSERT INTO policy_run (policy, began, attempt, owner) VALUES (?, ?, ?, ?)", values
            )
            connection.execute(
                "DELETE FROM policy_run WHERE policy = ? AND number NOT IN "
                "(SELECT number FROM policy_run WHERE policy = ? ORDER BY number DESC LIMIT ?)",
                (policy, policy, _MOST),
            )
            return Run(policy, made.lastrowid or 0, began, None, None, attempt=attempt)

        return await self._state.run(_TABLES, work)

    async def end(self, run: Run, outcome: Report | str) -> Run:
        """The same run, ended now with its report, or with the sentence that says why it failed."""
        ended = datetime.now(UTC)
        report = outcome if isinstance(outcome, Report) else None
        error = outcome if isinstance(outcome, str) else None
        word = "failed" if report is None else "done"
        text = None if report is None else msgspec.json.encode(report).decode()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE policy_run SET ended = ?, outcome = ?, report = ?, error = ? WHERE number = ?",
                (ended.isoformat(), word, text, error, run.number),
            )

        await self._state.run(_TABLES, work)
        return msgspec.structs.replace(
            run, ended=ended, outcome="failed" if report is None else "done", report=report, error=error
        )

    async def runs(self, policy: str, most: int) -> list[Run]:
        """The last ones, newest first."""

        def work(connection: sqlite3.Connection) -> list[Run]:
            found = f"SELECT {_COLUMNS} FROM policy_run WHERE policy = ? ORDER BY number DESC LIMIT ?"
            return _read(connection.execute(found, (policy, most)))

        return await self._state.run(_TABLES, work)


def process_mark(pid: int) -> str:
    """What no other process has, of this machine or after it started anew; empty where there is no such process.

    The start of a process is the 22nd field of /proc/PID/stat (proc(5)), its name in brackets the second.
    """
    try:
        started = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
    return f"{boot}:{pid}:{started}"


def _lives(owner: str) -> bool:
    """Whether what began a run can still end it."""
    process, _, _ = owner.partition("/")
    pid = process.split(":")[1] if process.count(":") == 2 else ""
    if not pid.isdigit() or process_mark(int(pid)) != process:
        return False
    return int(pid) != os.getpid() or owner in _living


def _read(rows: sqlite3.Cursor) -> list[Run]:
    return [_run(*row) for row in rows]


def _run(
    number: int, policy: str, began: str, ended: str | None, outcome: Any, report: str | None, error: str | None, n: int
) -> Run:
    return Run(
        policy,
        number,
        datetime.fromisoformat(began),
        None if ended is None else datetime.fromisoformat(ended),
        outcome,
        None if report is None else _reports.decode(report),
        error,
        n,
    )
