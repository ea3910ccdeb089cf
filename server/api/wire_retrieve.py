"""What `/v1/retrieve` takes and answers: a superset of OpenAI's search in vector stores."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import HybridWeights, Name, Positive, RankingOptions
from server.knowledge import TierName

Version = Annotated[int, Meta(ge=1, le=2**53)]


class RetrieveRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Hearth's own endpoint, so unknown fields are refused. `filters` follows OpenAI's filter grammar.

    `k` counts chunks, or files with `group_by`. `max_tokens` is a budget for all chunks of the answer together.
    `neighbours` joins so many chunks before and after each to its text. `as_of` is an earlier `index_version`: a number
    where one collection is searched, else one for each collection by name. `tiers` are those that are searched, of
    which hot and warm hold the same documents; without them cold storage is searched where the local answer is weak.
    """

    query: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(min_length=1, max_length=16)]
    collections: Annotated[list[Name], Meta(min_length=1)] | None = None
    k: Annotated[int, Meta(ge=1, le=100)] | None = None
    mode: Literal["hybrid", "vector", "text"] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    group_by: Literal["file"] | None = None
    max_tokens: Positive | None = None
    neighbours: Annotated[int, Meta(ge=0, le=8)] | None = None
    as_of: Version | dict[str, Version] | None = None
    tiers: Annotated[list[TierName], Meta(min_length=1)] | None = None
    include: list[Literal["vector", "explain"]] | None = None
    page: str | None = None


class TextContent(msgspec.Struct):
    type: Literal["text"]
    text: str


class Span(msgspec.Struct):
    """Characters of the document's text; `page` is the one they begin on, null where a document has no pages."""

    start: int
    end: int
    page: int | None


class FoundChunk(msgspec.Struct):
    """One of a file's chunks that were found, in the order of its `content`."""

    id: str
    score: float
    span: Span
    token_count: int


class RetrievedChunk(msgspec.Struct):
    """`score` is 0 to 1, higher is nearer; `scores` holds what it was made of.

    With `group_by` it is a file's nearest chunk, `content` holds the texts of all its chunks that were found, and
    `chunks` says where they stand; `token_count` counts them all. `tier` is there where it came from cold storage.
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
    licence: str | None
    content: list[TextContent]
    span: Span
    token_count: int
    citation: int
    chunks: list[FoundChunk] | UnsetType = UNSET
    tier: Literal["cold"] | UnsetType = UNSET
    vector: list[float] | UnsetType = UNSET


class LegConfidence(msgspec.Struct):
    """How well each ranking found known chunks of the collection, 0 to 1; the weights follow from it unless given."""

    vector: float
    text: float


class LegRanks(msgspec.Struct):
    """A chunk's place in each ranking, from 1; null where it was not among those that were compared."""

    vector: int | None
    text: int | None


class Explained(msgspec.Struct):
    """How one collection was searched for one query: what was compared, and how many chunks came of it.

    `ranks` tells of each chunk of the answer where the rankings had it, `ranker` which model put them in order. `note`
    says why it was searched in another mode than asked for, where it was. `tiers` were searched, and `cold` says why
    cold storage was, or was to be; `kept` says that the query cache had the answer.
    """

    collection: str
    query: str
    mode: str
    weights: HybridWeights
    filter: str | None
    considered: int
    timings_ms: dict[str, float]
    confidence: LegConfidence
    ranker: str | None
    ranks: dict[str, LegRanks]
    note: str | UnsetType = UNSET
    tiers: list[str] | UnsetType = UNSET
    cold: str | UnsetType = UNSET
    kept: bool | UnsetType = UNSET


class RetrieveUsage(msgspec.Struct):
    """`rerank_tokens` is there where a model put the chunks in order."""

    embedding_tokens: int
    rerank_tokens: int | UnsetType = UNSET


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
