"""What a collection tells of itself: the state it is in, what an ingest did, what a search found."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from server.knowledge.document import Hit
from server.knowledge.fuse import Scale

Progress = Callable[[str], None]
"""Hears one line about how far an ingest is. Called on the event loop."""


class Skipped(msgspec.Struct, frozen=True):
    """A file that was not taken in; what an earlier version of it brought stays, unless its licence is refused."""

    uri: str
    reason: str

    def __str__(self) -> str:
        return f"{self.uri}: {self.reason}"


class IngestReport(msgspec.Struct, frozen=True):
    """Documents by uri. `chunks` and `tokens` count what was embedded anew."""

    added: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0

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


class Upkeep(msgspec.Struct, frozen=True):
    """How a table is kept, as maintenance last saw it. `bytes` are on disk, `hot` are rows searched in memory.

    `unindexed` rows are searched one by one. `failures` counts passes that failed, `error` is of the last, if it did.
    """

    fragments: int = 0
    unindexed: int = 0
    versions: int = 0
    bytes: int = 0
    hot: int = 0
    failures: int = 0
    error: str | None = None


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

    `weights` are those of the vector and the text leg in a hybrid search, `scale` is what its text scores were
    measured by, and `legs` are the ids that each leg found, best first. `rerank_tokens` were read by a reranker.
    """

    hits: list[Hit]
    tokens: int
    timings_ms: dict[str, float]
    version: int
    weights: tuple[float, float]
    scale: Scale
    legs: dict[str, list[str]]
    rerank_tokens: int = 0


@dataclass
class SourceState:
    """What one source is doing. `state` is connecting, following, waiting (to try again) or failed.

    `messages` and `refused` count since the start; `lag_seconds` is how long the last message took to be searchable.
    """

    source: str
    state: str
    error: str | None = None
    messages: int = 0
    refused: int = 0
    lag_seconds: float | None = None
