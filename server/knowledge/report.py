"""What a collection tells of itself: the state it is in, what an ingest did, what a search found."""

from collections.abc import Callable

import msgspec

from server.knowledge.document import Hit

Progress = Callable[[str], None]
"""Hears one line about how far an ingest is. Called on the event loop."""


class Skipped(msgspec.Struct, frozen=True):
    """A file that was not taken in; what an earlier version of it brought stays searchable."""

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


class CollectionStatus(msgspec.Struct, frozen=True):
    """`state` is opening, syncing, ready or failed. `error` is the last fault, of an ingest or of maintenance."""

    state: str
    documents: int
    chunks: int
    version: int
    error: str | None
    last: IngestReport | None

    @property
    def skipped(self) -> list[str]:
        """What the last ingest left out, one line each."""
        return [] if self.last is None else [str(each) for each in self.last.skipped]


class Found(msgspec.Struct, frozen=True):
    """`hits` nearest first. `tokens` were embedded for the query. `version` is the table's, which each write raises."""

    hits: list[Hit]
    tokens: int
    timings_ms: dict[str, float]
    version: int
