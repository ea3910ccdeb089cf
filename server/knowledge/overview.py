"""What a collection's folder holds, looked at without its model: for who wants to know while no server runs."""

import asyncio
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from server.errors import KnowledgeUnavailable
from server.knowledge.record import Records
from server.knowledge.report import IndexState, Upkeep

if TYPE_CHECKING:
    from server.knowledge.store import Store


class Overview(msgspec.Struct, frozen=True):
    """One table as it is now; nothing of it is kept in memory."""

    version: int
    upkeep: Upkeep
    indices: list[IndexState]


async def overview(folder: Path, name: str) -> Overview | None:
    """None where nothing was ever brought. Writes nothing. Raises KnowledgeUnavailable."""
    if not await asyncio.to_thread(folder.is_dir):
        return None
    # Imports LanceDB, which takes a second of processor time.
    room = await asyncio.to_thread(importlib.import_module, "server.knowledge.store")
    try:
        record = await asyncio.to_thread(Records(folder).read)
        if record is None:
            return None
        store: Store = await room.Store.named(folder, record.serving, hot=0)
        try:
            measure = await store.measure()
            kept = Upkeep(
                documents=measure.documents,
                chunks=measure.rows,
                fragments=measure.fragments,
                unindexed=measure.unindexed,
                versions=measure.versions,
                bytes=measure.disk,
            )
            return Overview(await store.version(), kept, await store.indices())
        finally:
            await store.close()
    except (OSError, ValueError, RuntimeError) as error:  # all that LanceDB raises
        raise KnowledgeUnavailable(f"Collection {name} could not be read: {error}") from error
