"""How far each leg of a collection can be trusted, told without labels: pieces of its own chunks as queries.

A piece out of a chunk is easy for words and hard for vectors. So the text leg finds nearly all of them unless it cannot
read the documents' script, and the vector leg finds them as far as its model knows their language.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from server.errors import HearthError
from server.knowledge.fuse import spans, weights_of

if TYPE_CHECKING:
    import pyarrow as pa

    from server.knowledge.reading import Reading

log = logging.getLogger(__name__)

NAME = "confidence.json"
_QUERIES = 64
"""The mean over them has a standard error of about 0.04."""
_LEAST = 24
"""Pieces there have to be: in a collection with fewer chunks every leg finds every chunk."""
_DEPTH = 20
"""Places looked at: what stands further down adds next to nothing to the mean."""
_WORDS = 10
_LONGER = 2
"""Words a chunk has to have beyond those of a piece, so that a piece is not the whole."""
_GREW = 1.5
_AT_ONCE = 8
_LOOK_SECONDS = 10.0


class Confidence(msgspec.Struct, frozen=True):
    """Mean reciprocal rank, 0 to 1, of the chunk each piece was taken from. `table` tells which rows were asked."""

    table: str
    chunks: int
    vector: float
    text: float

    @property
    def weights(self) -> tuple[float, float]:
        """Of the vector and the text leg in a hybrid search."""
        return weights_of(self.vector, self.text)

    def holds(self, table: str, chunks: int) -> bool:
        """Whether it still speaks of a table that has `chunks` now."""
        return self.table == table and self.chunks / _GREW <= chunks <= self.chunks * _GREW


UNKNOWN = Confidence("", 0, 1.0, 1.0)
"""Of rows that were not asked: both legs are trusted."""


@dataclass(frozen=True)
class Asking:
    """What a self-test needs. `embed` takes texts of at most `room` bytes to unit vectors; `table` names the rows."""

    store: "Reading"
    table: str
    embed: Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]
    room: int


class SelfTest:
    """What is known of the legs of one collection, found out anew where its rows became others.

    It is kept as a small file in `folder`, beside the tables, for every process that opens them.
    """

    def __init__(self, folder: Path) -> None:
        self.known = UNKNOWN
        self._file = folder / NAME
        self._asking: Asking | None = None
        self._version = -1
        self._next_look = 0.0
        self._task: asyncio.Task[None] | None = None

    async def open(self, asking: Asking) -> None:
        self._asking = asking
        self.known = await asyncio.to_thread(self._kept, asking.table)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def notice(self, version: int) -> None:
        """Hear of the table's version: rows that this or another process wrote are asked in the background."""
        now = asyncio.get_running_loop().time()
        if version == self._version or now < self._next_look or not (self._task is None or self._task.done()):
            return
        self._version, self._next_look = version, now + _LOOK_SECONDS
        self._task = asyncio.create_task(self.renew())

    async def renew(self) -> None:
        """Ask where it is due. A fault here costs precision, not answers: it is told, and what was known stays."""
        if (asking := self._asking) is None:
            return
        try:
            _, chunks = await asking.store.count()
            if not self.known.holds(asking.table, chunks):
                self.known = await asyncio.to_thread(self._kept, asking.table)
            if not self.known.holds(asking.table, chunks):
                self.known = await measured(asking, chunks)
                await asyncio.to_thread(self._keep, self.known)
        except (HearthError, OSError, ValueError, RuntimeError) as error:
            log.warning("how the legs of %s find their own chunks could not be told: %s", self._file.parent, error)

    def _kept(self, table: str) -> Confidence:
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Confidence)
        except (FileNotFoundError, msgspec.MsgspecError):
            return UNKNOWN
        return kept if kept.table == table else UNKNOWN

    def _keep(self, found: Confidence) -> None:
        """Whole or not at all: other processes read it."""
        half = self._file.with_name(f"{NAME}.{random.randrange(16**8):08x}")
        half.write_bytes(msgspec.json.encode(found))
        half.replace(self._file)


async def measured(asking: Asking, chunks: int) -> Confidence:
    """Ask the store some dozens of its own pieces: one call of `embed`, and under a second of searching."""
    sampled = await asking.store.sample(2 * _QUERIES) if chunks >= _LEAST else []
    pieces = [each for each in _pieces(sampled) if len(each[1].encode()) <= asking.room][:_QUERIES]
    if len(pieces) < _LEAST:
        return Confidence(asking.table, chunks, 1.0, 1.0)
    vectors = await asking.embed([piece for _, piece in pieces])
    turns = asyncio.Semaphore(_AT_ONCE)

    async def ranks(key: str, piece: str, vector: NDArray[np.float32]) -> tuple[float, float]:
        async with turns:
            near = await asking.store.nearest(vector, None, _DEPTH)
            matching = await asking.store.matching(piece, None, _DEPTH)
        return _reciprocal(near, key), _reciprocal(matching, key)

    asked = zip(pieces, vectors, strict=True)
    found = await asyncio.gather(*(ranks(key, piece, vector) for (key, piece), vector in asked))
    vector, text = (round(float(mean), 4) for mean in np.mean(found, axis=0))
    return Confidence(asking.table, chunks, vector, text)


def _pieces(chunks: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Some ten words in a row of each chunk, with its id: always the same of the same chunks, in no order of theirs."""
    found = [(key, _piece(text, random.Random(key))) for key, text in sorted(chunks)]
    return [(key, piece) for key, piece in found if piece is not None]


def _piece(text: str, chance: random.Random) -> str | None:
    places = spans(text)
    if len(places) < _WORDS + _LONGER:
        return None
    first = chance.randrange(len(places) - _WORDS)
    return text[places[first][0] : places[first + _WORDS - 1][1]]


def _reciprocal(found: "pa.Table | None", key: str) -> float:
    ids = [] if found is None else found["id"].to_pylist()
    return 1.0 / (ids.index(key) + 1) if key in ids else 0.0
