"""What a collection tells of itself: the state it is in, what an ingest did, what a search found."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass

import msgspec

from server.knowledge.document import Hit
from server.knowledge.fuse import Scale


class Advance(msgspec.Struct, frozen=True):
    """How far an ingest is: files that were looked at, of so many, and their bytes; chunks that were embedded."""

    files: int
    all_files: int
    bytes: int
    all_bytes: int
    chunks: int

    def __str__(self) -> str:
        return f"{self.files} of {self.all_files} files, {self.chunks} chunks embedded"


Progress = Callable[[Advance], None]
"""Hears how far an ingest is. Called on the event loop."""


class Skipped(msgspec.Struct, frozen=True):
    """A file that was not taken in; what an earlier version of it brought stays, unless its licence is refused."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class IngestReport(msgspec.Struct, frozen=True):
    """Documents by uri. `chunks` and `tokens` count what was embedded anew.

    `bytes` are those of the texts and vectors of each document that was written; `declared` was not, because a source
    of the recipe has it.
    """

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0
    bytes: Mapping[str, int] = {}
    declared: tuple[str, ...] = ()

    def of(self, uris: Set[str]) -> "IngestReport":
        """What became of these documents alone; `chunks`, `tokens` and `seconds` stay those of all."""
        return msgspec.structs.replace(
            self,
            added=tuple(each for each in self.added if each in uris),
            updated=tuple(each for each in self.updated if each in uris),
            unchanged=tuple(each for each in self.unchanged if each in uris),
            deleted=tuple(each for each in self.deleted if each in uris),
            skipped=tuple(each for each in self.skipped if each.uri in uris),
            bytes={each: size for each, size in self.bytes.items() if each in uris},
            declared=tuple(each for each in self.declared if each in uris),
        )

    def __str__(self) -> str:
        parts = [
            f"{len(uris)} {word}"
            for word, uris in (
                ("added", self.added),
                ("updated", self.updated),
                ("unchanged", self.unchanged),
                ("deleted", self.deleted),
            )
            if uris
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return f"{', '.join(parts) or 'no documents'} ({self.chunks} chunks embedded in {self.seconds:.1f} s)"


class Applied(msgspec.Struct, frozen=True):
    """What became of changes, by document id. `refused` says why; what was `unchanged` was not embedded again."""

    written: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]
    refused: tuple[Skipped, ...]


class IndexState(msgspec.Struct, frozen=True):
    """One index of a table. `language` and `tokenizer` are those of an index of words."""

    column: str
    kind: str
    rows: int
    unindexed: int
    language: str | None = None
    tokenizer: str | None = None


class Rebuilding(msgspec.Struct, frozen=True):
    """A new index that is built beside the one that serves. `done` of `documents` are in it, `chunks` were embedded.

    `note` says what searches do without until it serves; None where they do without nothing.
    """

    reason: str
    documents: int
    done: int
    chunks: int
    seconds: float
    note: str | None = None


class Upkeep(msgspec.Struct, frozen=True):
    """How a table is kept, as maintenance last saw it. `bytes` are on disk, `hot` are rows searched in memory.

    `pending` documents are still to be brought into the index that is built to take this one's place; `rebuild` tells
    of that. `unindexed` rows are searched one by one. `failures` counts passes that failed, `error` is of the last, if
    it did. `cold` documents are in cold storage, and not among the others.
    """

    documents: int = 0
    chunks: int = 0
    fragments: int = 0
    unindexed: int = 0
    versions: int = 0
    bytes: int = 0
    hot: int = 0
    failures: int = 0
    error: str | None = None
    pending: int = 0
    rebuild: Rebuilding | None = None
    cold: int = 0


class CollectionStatus(msgspec.Struct, frozen=True):
    """`state` is opening, syncing, ready or failed. `error` is the last fault, of an ingest or of maintenance."""

    state: str
    documents: int
    chunks: int
    version: int
    error: str | None
    last: IngestReport | None
    upkeep: Upkeep = Upkeep()

    @property
    def skipped(self) -> list[str]:
        """What the last ingest left out, one line each."""
        return [] if self.last is None else [str(each) for each in self.last.skipped]


class Found(msgspec.Struct, frozen=True):
    """`hits` nearest first. `tokens` were embedded for the query. `version` is the table's, which each write raises.

    `weights` are those of the vector and the text leg in a hybrid search, `scale` is what its scores were
    measured by, and `places` are those of the hits in each leg that found them, from 1. `rerank_tokens` were read by a
    reranker.
    `mode` is how it was searched; `note` says why, where that is not as it was asked. `tiers` were searched, the cold
    one for the reason `why`; `is_kept` is of an answer that an earlier search found.
    """

    hits: list[Hit]
    tokens: int
    timings_ms: dict[str, float]
    version: int
    weights: tuple[float, float]
    scale: Scale
    places: dict[str, dict[str, int]]
    rerank_tokens: int = 0
    mode: str = "hybrid"
    note: str | None = None
    tiers: tuple[str, ...] = ("warm",)
    why: str = ""
    is_kept: bool = False


@dataclass
class SourceState:
    """What one source is doing. `state` is connecting, following, waiting (to try again) or failed.

    `messages` and `refused` count since the start; `lag_seconds` is how long the last message took to be searchable.
    `behind` messages were still to be read after it, where the broker tells. `last` is when the last message was sent,
    or files were last brought up to date, in seconds since 1970.
    """

    source: str
    state: str
    error: str | None = None
    messages: int = 0
    refused: int = 0
    lag_seconds: float | None = None
    behind: int | None = None
    last: float | None = None
