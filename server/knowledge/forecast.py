"""What a changed recipe will cost a collection, told before anything is loaded: for `hearth check`.

The record beside the tables says what they were made with. Only where that is not what the recipe says is the table
looked into, which imports LanceDB.
"""

import asyncio
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config.knowledge import CollectionSpec
from server.knowledge.record import MadeWith, Record, Records, Speed

if TYPE_CHECKING:
    from server.knowledge.store import Store

_AUTO = "auto"


@dataclass(frozen=True)
class Sizes:
    """What a table holds. `tokens` are those of the chunks' texts, as the model counts that it was made with."""

    documents: int
    chunks: int
    tokens: int


@dataclass(frozen=True)
class Change:
    """What is done to one collection when the server starts. `seconds` is None where no speed was measured."""

    collection: str
    reasons: tuple[str, ...]
    sizes: Sizes
    is_cut_anew: bool
    seconds: float | None
    words: bool
    """Whether its words are indexed in another language."""

    def __str__(self) -> str:
        name = f"knowledge.{self.collection}"
        if not self.reasons:
            return f"{name}: the language changed: the words of {self.sizes.chunks:,} chunks are indexed anew"
        done = "re-chunk and re-embed" if self.is_cut_anew else "re-embed"
        held = f"{self.sizes.chunks:,} chunks of {self.sizes.documents:,} documents"
        about = "" if self.seconds is None else f", about {_duration(self.seconds)} at the speed measured"
        return f"{name}: {', '.join(self.reasons)}: {done} {held}{about}; the old index serves until then"


def forecast(specs: Mapping[str, CollectionSpec], identities: Mapping[str, str], folder: Path) -> list[Change]:
    """One for each collection below `folder` that is not as `specs` say. Blocks.

    `identities` are of the embedding models by name; one that is not there cannot be told from another. Raises OSError,
    ValueError or RuntimeError for a folder that cannot be read.
    """
    records = {name: record for name in specs if (record := Records(folder / name).read()) is not None}
    found = []
    for name, record in records.items():
        spec = specs[name]
        reasons = _reasons(spec, record, identities.get(spec.embed, ""))
        if not reasons and spec.language == _AUTO:
            continue
        sizes, words = asyncio.run(_looked_at(folder / name, record.serving, spec.language))
        if reasons or words:
            speed = _speed(record, identities.get(spec.embed, ""), records.values())
            seconds = None if speed is None else sizes.tokens * speed.seconds / speed.tokens
            is_cut = record.made is not None and record.made.chunk != spec.chunk
            found.append(Change(name, tuple(reasons), sizes, is_cut, seconds, words))
    return found


def _reasons(spec: CollectionSpec, record: Record, identity: str) -> list[str]:
    made = record.made
    if made is None:
        return []
    now = MadeWith.of(
        spec.chunk,
        spec.attributes,
        model=spec.embed,
        identity=identity,
        dimension=made.dimension,
        context=made.context,
    )
    reasons = made.unlike(now, other_model=made.is_other_model(now))
    return reasons or (["some documents came while their embedding model was gone"] if record.blank else [])


def _speed(record: Record, identity: str, all_records: Iterable[Record]) -> Speed | None:
    """Measured with the model of this identity: here, or in another collection."""
    if not identity:
        return None
    return next(
        (
            each.speed
            for each in (record, *all_records)
            if each.speed is not None and each.made is not None and each.made.identity == identity
        ),
        None,
    )


async def _looked_at(folder: Path, table: str, language: str) -> tuple[Sizes, bool]:
    room = importlib.import_module("server.knowledge.store")
    store: Store = await room.Store.named(folder, table, hot=0, language=language)
    try:
        documents, chunks = await store.count()
        words = language != _AUTO and await store.lacks_words()
        return Sizes(documents, chunks, await store.tokens()), words
    finally:
        await store.close()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
