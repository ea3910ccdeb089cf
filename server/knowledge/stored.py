"""What goes into a store and what it says of a document it has. Knows not how either is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.knowledge.document import DECLARED, AttributeValue, Chunk, Document


@dataclass(frozen=True)
class Cut:
    """A document with its chunks and their vectors, float32 [chunks, dimension]."""

    document: Document
    chunks: Sequence[Chunk]
    vectors: NDArray[np.float32]

    @property
    def bytes(self) -> int:
        """Of the chunks' texts and vectors."""
        return sum(len(chunk.text.encode()) for chunk in self.chunks) + self.vectors.nbytes

    def flaw(self, dimension: int) -> str | None:
        """Why a table of vectors of `dimension` numbers cannot hold it; None where it can."""
        wanted = (len(self.chunks), dimension)
        if self.document.vector is not None and self.vectors.shape[1] != dimension:
            return f"its vector has {self.vectors.shape[1]} numbers, those of this collection have {dimension}"
        if self.vectors.shape != wanted:
            return f"its vectors are {list(self.vectors.shape)}, this collection holds {list(wanted)} (chunks, numbers)"
        if not np.isfinite(self.vectors).all():
            return "its vectors hold numbers that are not finite"
        return None


@dataclass(frozen=True)
class Stored:
    """What the table says of one document."""

    id: str
    hash: str
    source: str
    uri: str
    path: str | None
    licence: str | None = None

    @property
    def is_declared(self) -> bool:
        """Whether a source that the recipe declares brought it."""
        return self.source.startswith(DECLARED)


@dataclass(frozen=True)
class Listed:
    """One document as a list of them shows it; `bytes` are those of its chunks' texts and vectors."""

    id: str
    uri: str
    filename: str
    title: str
    licence: str | None
    attributes: Mapping[str, AttributeValue]
    bytes: int


@dataclass(frozen=True)
class Held:
    """One document put together from its chunks; `bytes` as in a list."""

    document: Document
    chunks: int
    bytes: int
