"""What a table's rows are made with, as its schema says it; how tables of a folder are named, found and made."""

import asyncio
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from server.knowledge.attributes import Types
from server.knowledge.record import MadeWith
from server.knowledge.rows import schema, types_of

_NAME = re.compile(r"chunks_\d+")
_FINGERPRINT = b"hearth.fingerprint"
_PROBE = b"hearth.probe"
_MADE = b"hearth.made"
_SAME_MODEL = 0.99
"""Cosine between one sentence's vectors then and now. Precisions of one model differ by less than 0.001."""
_INDEX_CACHE = 512 * 1024**2
_METADATA_CACHE = 128 * 1024**2


@dataclass(frozen=True)
class Shape:
    """What rows are made with. `fingerprint` covers all but the model, `probe` (its vector for one text) that.

    `made` is the same in words; None of a table that was made before it was kept.
    """

    attributes: Types
    fingerprint: str
    probe: NDArray[np.float32]
    made: MadeWith | None = None

    def has_model_of(self, other: "Shape") -> bool:
        """Whether both are for one model: by what it says it is, where both say it, and by its vectors."""
        if self.made is not None and other.made is not None and self.made.is_other_model(other.made):
            return False
        return self.probe.shape == other.probe.shape and float(self.probe @ other.probe) >= _SAME_MODEL

    def is_as(self, other: "Shape") -> bool:
        """Whether rows of both are the same."""
        return self.fingerprint == other.fingerprint and self.has_model_of(other)


@functools.cache
def _session() -> lancedb.Session:
    """One for the process: its caches are bounded only when every table shares them."""
    return lancedb.Session(index_cache_size_bytes=_INDEX_CACHE, metadata_cache_size_bytes=_METADATA_CACHE)


async def connected(folder: Path) -> Any:
    """A connection to the tables of `folder`, which is made where it is missing."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    return await lancedb.connect_async(folder, read_consistency_interval=timedelta(0), session=_session())


async def tables(connection: Any) -> list[str]:
    """Names of the collection's tables, oldest first."""
    names: Iterable[str] = (await connection.list_tables()).tables
    return sorted((name for name in names if _NAME.fullmatch(name)), key=_number)


async def free_name(connection: Any) -> str:
    """That of the next table."""
    names = await tables(connection)
    return f"chunks_{_number(names[-1]) + 1 if names else 1}"


async def created(connection: Any, name: str, shape: Shape) -> Any:
    """An empty table."""
    probe = " ".join(f"{value:.6g}" for value in shape.probe)
    metadata: dict[bytes | str, bytes | str] = {_FINGERPRINT: shape.fingerprint, _PROBE: probe}
    if shape.made is not None:
        metadata[_MADE] = msgspec.json.encode(shape.made)
    like = schema(len(shape.probe), shape.attributes, metadata)
    return await connection.create_table(name, schema=like, exist_ok=True)


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def shape_of(like: pa.Schema) -> Shape:
    """What a table's schema says of its rows."""
    metadata = like.metadata or {}
    probe = np.array([float(part) for part in metadata.get(_PROBE, b"").split()], np.float32)
    made = msgspec.json.decode(metadata[_MADE], type=MadeWith) if _MADE in metadata else None
    return Shape(types_of(like), metadata.get(_FINGERPRINT, b"").decode(), probe, made)
