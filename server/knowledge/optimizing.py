"""The child's side of the optimizer: a process that makes way for every other one. Imported by workers only."""

import asyncio
import contextlib
import importlib
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from server.knowledge.optimizer import Optimize, Optimized

if TYPE_CHECKING:
    from server.knowledge.store import Store

_NICENESS = 10
"""Of 19: a tenth of the processor is left to it where others want all."""
_AUTOGROUP = Path("/proc/self/autogroup")


class Optimizing:
    """An AsyncService. Each call is one table's, and they run side by side."""

    _store: "type[Store]"

    async def start(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        _make_way()
        # Brings LanceDB, which takes a second of a processor: only now, where that makes way too.
        self._store = importlib.import_module("server.knowledge.store").Store
        return b""

    async def call(self, body: bytes, send: Callable[[bytes], None]) -> bytes:
        asked, began, fault = msgspec.msgpack.decode(body, type=Optimize), time.process_time(), None
        try:
            store = await self._store.named(Path(asked.folder), asked.table, hot=0)
            try:
                await store.optimize(timedelta(seconds=asked.retention), asked.filtered)
            finally:
                await store.close()
        except (OSError, ValueError, RuntimeError) as error:
            fault = str(error)
        return msgspec.msgpack.encode(Optimized(time.process_time() - began, fault))

    async def lasting(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open between calls."""


def _make_way() -> None:
    os.nice(_NICENESS)
    # Where Linux shares the processor among sessions first, niceness counts within one alone, and this process has a
    # session of its own. The file is not there otherwise (sched(7), "The autogroup feature").
    with contextlib.suppress(OSError):
        _AUTOGROUP.write_text(str(_NICENESS))
