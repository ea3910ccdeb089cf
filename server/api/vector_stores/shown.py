"""What several routes of vector stores have in common: their faults, and how files and counts are shown."""

from collections.abc import Mapping

from config.knowledge import ChunkSpec
from server.api.vector_stores.wire import (
    AutoChunking,
    Chunking,
    FileCounts,
    LastError,
    StaticChunking,
    StaticChunks,
    VectorStoreFile,
)
from server.errors import InvalidValue
from server.vector_stores import Status, StoreFile

FAULTS = ("400", "401", "403", "404", "405", "409", "413", "415", "429", "500", "503")
POLL_MS = 50
"""How soon a client that waits should ask again: a small file is searchable in about that time."""


def chunk_of(asked: Chunking | None) -> ChunkSpec | None:
    """How to cut; None is as the store says. Raises InvalidValue."""
    if asked is None or isinstance(asked, AutoChunking):
        return None
    tokens, overlap = asked.static.max_chunk_size_tokens, asked.static.chunk_overlap_tokens
    if overlap * 2 > tokens:
        raise InvalidValue(
            f"An overlap of {overlap} tokens is more than half of a chunk of {tokens}.",
            param="chunking_strategy.static.chunk_overlap_tokens",
        )
    return ChunkSpec(tokens=tokens, overlap=overlap)


def shown_counts(found: Mapping[Status, int]) -> FileCounts:
    total = sum(found.values())
    return FileCounts(found["in_progress"], found["completed"], found["failed"], found["cancelled"], total)


def shown_file(file: StoreFile, default: ChunkSpec) -> VectorStoreFile:
    """`default` is how the store cuts."""
    chunk = file.chunk or default
    return VectorStoreFile(
        id=file.file,
        vector_store_id=file.store,
        created_at=file.created_at,
        status=file.status,
        usage_bytes=file.bytes,
        last_error=None if file.code is None else LastError(file.code, file.message or ""),
        attributes=file.attributes,
        chunking_strategy=StaticChunking(StaticChunks(chunk.tokens, chunk.overlap)),
    )


def polled(files: list[StoreFile]) -> dict[str, str]:
    """The header that OpenAI's SDKs obey while they wait for files."""
    return {"openai-poll-after-ms": str(POLL_MS)} if any(file.status == "in_progress" for file in files) else {}
