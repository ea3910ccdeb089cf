"""What is on record of a collection beside its tables: which one serves, what it was made with, how fast that went.

A small file in the collection's folder, so that a copy of the folder is a copy of the collection. It is replaced whole:
another table serves from one moment to the next, for every process. Reads no table, so `hearth check` may read it.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from config.knowledge import ChunkSpec
from server.knowledge.attributes import Types
from server.knowledge.document import digest

LAYOUT = "2"
"""Raise it when documents are extracted, cut or stored in another way: tables made before are then made anew."""
NAME = "serving.json"

Seen = tuple[int, int]
"""What changes with each version of the record: as `os.stat` tells it."""


class MadeWith(msgspec.Struct, frozen=True):
    """What decides what a table's rows are. `model` is the embedding model's name then, `identity` what it is.

    `context` is the longest text it reads, in tokens. `attributes` None stands for whatever each document brings.
    """

    layout: str
    model: str
    identity: str
    dimension: int
    context: int
    tokens: int
    overlap: int
    attributes: Mapping[str, str] | None

    @classmethod
    def of(
        cls, chunk: ChunkSpec, types: Types, *, model: str, identity: str, dimension: int, context: int
    ) -> "MadeWith":
        attributes = None if types is None else dict(sorted(types.items()))
        return cls(LAYOUT, model, identity, dimension, context, chunk.tokens, chunk.overlap, attributes)

    @property
    def fingerprint(self) -> str:
        """Of all but the model."""
        attributes = "undeclared" if self.attributes is None else sorted(self.attributes.items())
        return digest(self.layout, str(self.tokens), str(self.overlap), str(self.context), repr(attributes))

    @property
    def chunk(self) -> ChunkSpec:
        return ChunkSpec(tokens=self.tokens, overlap=self.overlap)

    def is_other_model(self, now: "MadeWith") -> bool:
        """Whether it is for certain; models that do not say what they are are told by their vectors."""
        known = self.identity and now.identity
        return self.dimension != now.dimension or bool(known and self.identity != now.identity)

    def unlike(self, now: "MadeWith", *, other_model: bool) -> list[str]:
        """What changed up to `now`, each in a few words; empty where the rows would be the same."""
        found = []
        if other_model:
            before, after = self.model, now.model
            if before == after:  # other weights under the same name
                before, after = (each.identity[:8] or f"{each.dimension} numbers" for each in (self, now))
            found.append(f"the embedding model changed ({before} -> {after})")
        if self.chunk != now.chunk:
            found.append(
                f"the chunking changed ({self.tokens} tokens with {self.overlap} of overlap -> {now.tokens} with "
                f"{now.overlap})"
            )
        if self.attributes != now.attributes:
            found.append("the attributes changed")
        if self.layout != now.layout:
            found.append(f"this Hearth reads documents in another way ({self.layout} -> {now.layout})")
        if self.context != now.context and not other_model:
            found.append(f"the model reads texts of another length ({self.context} tokens -> {now.context})")
        return found


class Speed(msgspec.Struct, frozen=True):
    """What an ingest embedded, and in how many seconds."""

    chunks: int
    tokens: int
    seconds: float


class Record(msgspec.Struct, frozen=True):
    """`serving` is the table that answers. `blank` says that rows of it have no vectors of its model.

    `speed` is of the model that `made` names.
    """

    serving: str
    made: MadeWith | None = None
    blank: bool = False
    speed: Speed | None = None


class Records:
    """The record in one folder. Every method blocks, for less than a millisecond where the disk is idle."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / NAME

    def seen(self) -> Seen | None:
        """Which version it is; costs microseconds. None where there is none yet."""
        try:
            found = self._file.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read(self) -> Record | None:
        """None where there is none yet. Raises ValueError that names the file where it is broken."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise ValueError(f"{self._file}: {error}") from error

    def begin(self, record: Record) -> Record:
        """Put `record` down where there is none; answers with what is on record then."""
        with self._alone():
            found = self.read()
            if found is None:
                self._write(found := record)
        return found

    def change(self, changed: Callable[[Record], Record]) -> None:
        """Put down what `changed` makes of the record, with no other process between; nothing where there is none."""
        with self._alone():
            found = self.read()
            if found is not None and (new := changed(found)) != found:
                self._write(new)

    def note_speed(self, speed: Speed) -> None:
        self.change(lambda record: replace(record, speed=speed))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._file.with_suffix(".lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield  # closing the file lets go

    def _write(self, record: Record) -> None:
        fresh = self._file.with_suffix(f".{os.getpid()}.new")
        with fresh.open("wb") as writing:
            writing.write(msgspec.json.format(msgspec.json.encode(record)))
            writing.flush()
            os.fsync(writing.fileno())
        fresh.replace(self._file)
