"""What `/v1/retrieve` takes and answers: a superset of OpenAI's search in vector stores."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import Name, Probability


class HybridWeights(msgspec.Struct, forbid_unknown_fields=True):
    """How much each ranking counts; not both 0."""

    embedding_weight: Probability
    text_weight: Probability


class RankingOptions(msgspec.Struct, forbid_unknown_fields=True):
    score_threshold: Probability | None = None
    hybrid_search: HybridWeights | None = None


class RetrieveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Hearth's own endpoint, so unknown fields are refused. `filters` follows OpenAI's filter grammar.

    `k` counts chunks, or files with `group_by`. `max_tokens` is a budget for all chunks of the answer together.
    """

    query: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(min_length=1, max_length=16)]
    collections: Annotated[list[Name], Meta(min_length=1)] | None = None
    k: Annotated[int, Meta(ge=1, le=100)] | None = None
    mode: Literal["hybrid", "vector", "text"] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    group_by: Literal["file"] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    include: list[Literal["vector", "explain"]] | None = None
    page: str | None = None


class TextContent(msgspec.Struct):
    type: Literal["text"]
    text: str


class Span(msgspec.Struct):
    """Characters of the document's text."""

    start: int
    end: int


class FoundChunk(msgspec.Struct):
    """One of a file's chunks that were found, in the order of its `content`."""

    id: str
    score: float
    span: Span
    token_count: int


class RetrievedChunk(msgspec.Struct):
    """`score` is 0 to 1, higher is nearer; `scores` holds what it was made of.

    With `group_by` it is a file's nearest chunk, `content` holds the texts of all its chunks that were found, and
    `chunks` says where they stand; `token_count` counts them all.
    """

    object: Literal["retrieval.chunk"]
    id: str
    collection: str
    file_id: str
    document_id: str
    filename: str
    uri: str
    title: str | None
    heading: str | None
    score: float
    scores: dict[str, float]
    attributes: dict[str, Any]
    content: list[TextContent]
    span: Span
    token_count: int
    citation: int
    chunks: list[FoundChunk] | UnsetType = UNSET
    vector: list[float] | UnsetType = UNSET


class Explained(msgspec.Struct):
    """How one collection was searched for one query: what was compared, and how many chunks each ranking gave."""

    collection: str
    query: str
    mode: str
    weights: HybridWeights
    filter: str | None
    considered: int
    timings_ms: dict[str, float]


class RetrieveUsage(msgspec.Struct):
    embedding_tokens: int


class RetrievalPage(msgspec.Struct):
    """`next_page` is for the field `page` of the same request; `explain` is there when it was asked for."""

    object: Literal["retrieval.page"]
    id: str
    search_query: list[str]
    data: list[RetrievedChunk]
    usage: RetrieveUsage
    timings_ms: dict[str, float]
    index_version: dict[str, int]
    has_more: bool
    next_page: str | None
    explain: list[Explained] | UnsetType = UNSET
