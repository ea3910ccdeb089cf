"""How far each leg of a collection can be trusted, told without labels: pieces of its own chunks as queries.

A piece is taken out of a chunk, and each leg looks for what is left among what is left of other chunks: the inverse
cloze task (Lee, Chang and Toutanova 2019). No words of the piece stand there any more but those that the text has in
several places, as with a question; where the piece itself could be found, a model would seem to know any language.
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
from server.knowledge.counting import Counter
from server.knowledge.fuse import spans, weights_of
from server.models.prompts import Side

if TYPE_CHECKING:
    from server.knowledge.reading import Reading

log = logging.getLogger(__name__)

NAME = "confidence.json"
_WAY = "inverse cloze"
_QUERIES = 64
"""Pieces that are asked, each among as many, so that both means compare; their ratio is off by a tenth or so."""
_LEAST = 24
"""Pieces there have to be: among fewer every leg finds every one."""
_WORDS, _SHARE = 10, 3
"""A piece has so many words, of a short chunk one in so many."""
_AROUND = 40
"""Words before and after a piece that are left of its chunk, at most."""
_SHORTEST = 12
"""Words of a chunk that a piece can be taken out of."""
_GREW = 1.5
_LOOK_SECONDS = 60.0


class Confidence(msgspec.Struct, frozen=True):
    """How far each leg finds what is left of the chunk that a piece was taken from: 0 is chance, 1 always first.

    `table` tells which rows were asked, `way` how.
    """

    table: str
    chunks: int
    vector: float
    text: float
    way: str = ""

    @property
    def weights(self) -> tuple[float, float]:
        """Of the vector and the text leg in a hybrid search."""
        return weights_of(self.vector, self.text)

    def holds(self, table: str, chunks: int) -> bool:
        """Whether it still speaks of a table that has `chunks` now."""
        same = self.way == _WAY and self.table == table
        return same and self.chunks / _GREW <= chunks <= self.chunks * _GREW


UNKNOWN = Confidence("", 0, 1.0, 1.0, _WAY)
"""Of rows that were not asked: both legs are trusted."""


@dataclass(frozen=True)
class Asking:
    """What a self-test needs. `embed` takes texts that fit, as `counter` counts, to unit vectors.

    `table` names the rows.
    """

    store: "Reading"
    table: str
    embed: Callable[[Sequence[str], Side], Awaitable[NDArray[np.float32]]]
    counter: Counter


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
        return kept if kept.table == table and kept.way == _WAY else UNKNOWN

    def _keep(self, found: Confidence) -> None:
        """Whole or not at all: other processes read it."""
        half = self._file.with_name(f"{NAME}.{random.randrange(16**8):08x}")
        half.write_bytes(msgspec.json.encode(found))
        half.replace(self._file)


async def measured(asking: Asking, chunks: int) -> Confidence:
    """Ask both legs for some dozens of pieces: two calls of `embed`, and under a second of searching."""
    sampled = await asking.store.sample(2 * _QUERIES) if chunks >= _LEAST else []
    asked = await asyncio.to_thread(_cut, sampled, asking.counter)
    if len(asked) < _LEAST:
        return Confidence(asking.table, chunks, 1.0, 1.0, _WAY)
    pieces, rests = [piece for piece, _ in asked], [rest for _, rest in asked]
    wanted, held = await asking.embed(pieces, "query"), await asking.embed(rests, "document")
    by_text = await asking.store.scores_among(rests, pieces)
    by_vector = wanted @ held.T
    return Confidence(asking.table, chunks, _beyond_chance(by_vector), _beyond_chance(by_text), _WAY)


def _cut(chunks: Sequence[tuple[str, str]], counter: Counter) -> list[tuple[str, str]]:
    """A piece of each chunk and what stands around it: always the same of the same chunks, in no order of theirs.

    The longest ones: what is left of a short chunk tells little. Blocks.
    """
    found = [_piece(text, random.Random(key)) for key, text in sorted(chunks)]
    cut = sorted((each for each in found if each is not None), key=lambda each: -len(spans(each[1])))
    counts = counter.count([rest for _, rest in cut])
    return [each for each, count in zip(cut, counts, strict=True) if count <= counter.room][:_QUERIES]


def _piece(text: str, chance: random.Random) -> tuple[str, str] | None:
    """Some ten words in a row, and those before and after them."""
    places = spans(text)
    if len(places) < _SHORTEST:
        return None
    size = min(_WORDS, len(places) // _SHARE)
    first = chance.randrange(len(places) - size + 1)
    end = first + size
    before, after = places[max(0, first - _AROUND) : first], places[end : end + _AROUND]
    rest = " ".join(text[part[0][0] : part[-1][1]] for part in (before, after) if part)
    return text[places[first][0] : places[end - 1][1]], rest


def _beyond_chance(scores: NDArray[np.float32]) -> float:
    """The mean reciprocal rank of each row's own column, of those that score alike behind half: 0 for any order."""
    own = np.diag(scores)[:, None]
    ranks = (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) + 1) / 2
    chance = float(np.mean(1 / np.arange(1, len(scores) + 1)))
    return round(max(0.0, (float(np.mean(1 / ranks)) - chance) / (1 - chance)), 4)
