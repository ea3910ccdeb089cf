"""When each model's weights were last asked for, as state.db keeps it across servers and runs."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from server.errors import HearthError
from server.models import cold_weights
from server.models.resident import Resident
from server.state import State, Tables

log = logging.getLogger(__name__)

_TABLES = Tables(
    "weights",
    ("CREATE TABLE weights_use (path TEXT PRIMARY KEY, since REAL NOT NULL, used REAL NOT NULL) WITHOUT ROWID",),
)
_NOTE_S = 60.0


class Uses:
    """Of the files of all models of one data directory; times are in seconds since 1970."""

    def __init__(self, state: State, models: Iterable[Resident]) -> None:
        """`models` are those of a running server; without one there are none, and nobody asks."""
        self._state = state
        self._models = list(models)
        self._noted: dict[str, float] = {}
        """What was written down of each: what was forgotten since is not written again."""

    @asynccontextmanager
    async def noted(self) -> AsyncIterator[None]:
        """Write down once a minute what was asked for, and at the end of the block."""
        task = asyncio.create_task(self._keep(), name="uses of models")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._note_quietly()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_NOTE_S)
            await self._note_quietly()

    async def _note_quietly(self) -> None:
        try:
            await self.note()
        except HearthError as error:
            log.warning("uses of models were not written down: %s", error)

    async def note(self) -> None:
        """Write down when each model was last asked."""
        asked = {model.name: model.asked for model in self._models if model.asked is not None}
        found = [
            (str(source.path), asked[model.name], asked[model.name])
            for model in self._models
            if model.name in asked and asked[model.name] != self._noted.get(model.name)
            for source in cold_weights.local_sources(model.spec)
        ]
        if not found:
            return

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT INTO weights_use VALUES (?, ?, ?) "
                "ON CONFLICT (path) DO UPDATE SET used = max(used, excluded.used)",
                found,
            )

        await self._state.run(_TABLES, work)
        self._noted |= asked

    async def since(self, here: Collection[Path], now: float) -> Mapping[Path, float]:
        """Since when nobody asked for each of these, of which those that are seen for the first time count from now.

        Others are forgotten: one that comes back begins anew.
        """

        def work(connection: sqlite3.Connection) -> dict[Path, float]:
            rows = connection.execute("SELECT path, since, used FROM weights_use").fetchall()
            known = {Path(path): max(since, used) for path, since, used in rows}
            connection.executemany(
                "DELETE FROM weights_use WHERE path = ?", [(str(p),) for p in known if p not in here]
            )
            fresh = [each for each in here if each not in known]
            connection.executemany("INSERT INTO weights_use VALUES (?, ?, 0)", [(str(each), now) for each in fresh])
            return {each: known.get(each, now) for each in here}

        return await self._state.run(_TABLES, work)
