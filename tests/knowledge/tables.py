"""Stores of random unit vectors, and documents to fill them with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from server.knowledge.document import Chunk, Document
from server.knowledge.shape import Shape
from server.knowledge.store import Store
from server.knowledge.stored import Cut

DIMENSION = 16


def shape(fingerprint: str = "f", probe: int = 0) -> Shape:
    return Shape({"team": "string"}, fingerprint, np.eye(DIMENSION, dtype=np.float32)[probe])


def units(count: int, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)
    found: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


def cut(name: str, chunks: int, word: str = "word", seed: int = 0) -> Cut:
    return Cut(
        Document(id=name, uri=f"{name}.md", filename=f"{name}.md", text="x" * chunks),
        [Chunk(f"{word} {n} of {name}", n, n + 1, (), "", 4) for n in range(chunks)],
        units(chunks, seed),
    )


async def filled(folder: Path, documents: int, chunks: int = 1, **settings: int) -> Store:
    """A store of documents d0, d1 ..., each with vectors of its own."""
    store = await Store.open(folder, shape(), **settings)
    await store.replace([cut(f"d{n}", chunks, seed=n) for n in range(documents)])
    return store


async def nearest(store: Store, vector: NDArray[np.float32], limit: int = 10) -> list[str]:
    """Ids of documents."""
    found: list[str] = (await store.nearest(vector, None, limit))["document_id"].to_pylist()
    return found
