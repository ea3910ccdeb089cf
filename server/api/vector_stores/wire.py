"""What `/v1/vector_stores` takes and answers, as OpenAI's document has it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.listing import ListQuery
from server.api.wire import Name
from server.vector_stores import Status

Text = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[Annotated[str, Meta(max_length=64)], Text], Meta(max_length=16)]
AttributeValue = str | int | float | bool
Attributes = Annotated[dict[str, AttributeValue], Meta(max_length=16)]
FileIds = Annotated[list[str], Meta(min_length=1, max_length=2000)]


# ---- how files are cut ----------------------------------------------------------------------------------------------


class StaticChunks(msgspec.Struct):
    """In tokens of the embedding model; the overlap is at most half of a chunk."""

    max_chunk_size_tokens: Annotated[int, Meta(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Meta(ge=0, le=2048)]


class AutoChunking(msgspec.Struct, tag_field="type", tag="auto"):
    """As the store says."""


class StaticChunking(msgspec.Struct, tag_field="type", tag="static"):
    static: StaticChunks


Chunking = AutoChunking | StaticChunking


# ---- stores ---------------------------------------------------------------------------------------------------------


class ExpiresAfter(msgspec.Struct):
    days: Annotated[int, Meta(ge=1, le=365)]
    anchor: Literal["last_active_at"]


class CreateStore(msgspec.Struct):
    """`embedding_model` is Hearth's own: one of the recipe's models with `task: embed`, else its first."""

    name: Annotated[str, Meta(max_length=256)] | None = None
    description: Text | None = None
    file_ids: Annotated[list[str], Meta(max_length=2000)] | None = None
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None
    chunking_strategy: Chunking | None = None
    embedding_model: str | None = None


class ChangeStore(msgspec.Struct):
    """What is not sent stays; a null takes it away."""

    name: Annotated[str, Meta(max_length=256)] | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    expires_after: ExpiresAfter | UnsetType | None = UNSET


class FileCounts(msgspec.Struct):
    in_progress: int
    completed: int
    failed: int
    cancelled: int
    total: int


class VectorStore(msgspec.Struct):
    """`embedding_model` is Hearth's own."""

    id: str
    name: str
    description: str | None
    created_at: int
    last_active_at: int
    status: Literal["expired", "in_progress", "completed"]
    usage_bytes: int
    file_counts: FileCounts
    metadata: Mapping[str, str]
    expires_after: ExpiresAfter | None
    expires_at: int | None
    embedding_model: str | None
    object: Literal["vector_store"] = "vector_store"


class VectorStoreList(msgspec.Struct):
    data: list[VectorStore]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class VectorStoreDeleted(msgspec.Struct):
    id: str
    deleted: bool
    object: Literal["vector_store.deleted"] = "vector_store.deleted"


# ---- files of a store -----------------------------------------------------------------------------------------------


class AttachFile(msgspec.Struct):
    file_id: str
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class ChangeFile(msgspec.Struct):
    """The attributes in place of those the file has; null is none."""

    attributes: Attributes | None


class FilesOfStoreQuery(ListQuery):
    """Which files of a store or a batch are listed."""

    filter: Status | UnsetType = UNSET


class LastError(msgspec.Struct):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class VectorStoreFile(msgspec.Struct):
    id: str
    vector_store_id: str
    created_at: int
    status: Status
    usage_bytes: int
    last_error: LastError | None
    attributes: Mapping[str, AttributeValue]
    chunking_strategy: StaticChunking
    object: Literal["vector_store.file"] = "vector_store.file"


class VectorStoreFileList(msgspec.Struct):
    data: list[VectorStoreFile]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class VectorStoreFileDeleted(msgspec.Struct):
    id: str
    deleted: bool
    object: Literal["vector_store.file.deleted"] = "vector_store.file.deleted"


class StoreText(msgspec.Struct):
    text: str
    type: Literal["text"] = "text"


class FileContentPage(msgspec.Struct):
    """The text that was read from the file."""

    file_id: str
    filename: str
    attributes: Mapping[str, AttributeValue]
    data: list[StoreText]
    content: list[StoreText]
    has_more: bool = False
    next_page: str | None = None
    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"


# ---- batches --------------------------------------------------------------------------------------------------------


class CreateBatch(msgspec.Struct):
    """`file_ids`, which share attributes and chunking, or `files`, each with its own."""

    file_ids: FileIds | None = None
    files: Annotated[list[AttachFile], Meta(min_length=1, max_length=2000)] | None = None
    attributes: Attributes | None = None
    chunking_strategy: Chunking | None = None


class FileBatch(msgspec.Struct):
    id: str
    vector_store_id: str
    created_at: int
    status: Status
    file_counts: FileCounts
    object: Literal["vector_store.files_batch"] = "vector_store.files_batch"


# ---- search ---------------------------------------------------------------------------------------------------------


class HybridSearch(msgspec.Struct):
    embedding_weight: Annotated[float, Meta(ge=0)]
    text_weight: Annotated[float, Meta(ge=0)]


class SearchRanking(msgspec.Struct):
    """`ranker` is `none`, or any other name for this server's own ranking."""

    ranker: str | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    hybrid_search: HybridSearch | None = None


class SearchStore(msgspec.Struct):
    query: Name | Annotated[list[Name], Meta(min_length=1, max_length=16)]
    max_num_results: Annotated[int, Meta(ge=1, le=50)] = 10
    filters: dict[str, Any] | None = None
    ranking_options: SearchRanking | None = None
    rewrite_query: bool | None = None
    page: str | None = None


class SearchResult(msgspec.Struct):
    file_id: str
    filename: str
    score: float
    attributes: Mapping[str, AttributeValue]
    content: list[StoreText]


class SearchPage(msgspec.Struct):
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool
    next_page: str | None
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
