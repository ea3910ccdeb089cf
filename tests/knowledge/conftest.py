"""A folder of documents, and collections over it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from config.knowledge import ChunkSpec, CollectionSpec, FilesSource
from server.knowledge import Collection
from tests.knowledge.hashing import HashEmbedder

settings.register_profile("steady", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("steady")

Make = Callable[..., Collection]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path, docs: Path) -> Make:
    """Collections over `docs`, all in one data folder, as several processes would open them."""

    def collection(
        embedder: HashEmbedder | None = None,
        *,
        glob: str | None = "**/*",
        attributes: Mapping[str, str] | None = None,
        chunk: ChunkSpec | None = None,
    ) -> Collection:
        spec = CollectionSpec(
            embed="embed",
            # The pattern is resolved when a recipe is loaded; here it is absolute from the start.
            sources=() if glob is None else (FilesSource.model_construct(files=str(docs / glob)),),
            chunk=chunk or ChunkSpec(tokens=60, overlap=10),
            attributes=attributes or {},
        )
        return Collection("handbook", spec, embedder or HashEmbedder(), tmp_path / "data")

    return collection
