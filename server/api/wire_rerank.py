"""The bodies of rerank requests and answers as the clients of Cohere and Jina send and read them; types only."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import EmbeddingUsage, Name, Positive


class RerankDocument(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    """`top_n` bounds the results; all come without it. `return_documents` puts each text beside its score."""

    model: Name
    query: Name
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1, max_length=2048)]
    top_n: Positive | None = None
    return_documents: bool | None = None


class RerankResult(msgspec.Struct):
    """`index` is the document's place in the request; `relevance_score` is 0 to 1, higher is better."""

    index: int
    relevance_score: float
    document: RerankDocument | UnsetType = UNSET


class RerankVersion(msgspec.Struct):
    version: Literal["2"]


class RerankTokens(msgspec.Struct):
    input_tokens: int


class RerankMeta(msgspec.Struct):
    """What Cohere's clients read."""

    api_version: RerankVersion
    tokens: RerankTokens


class RerankReply(msgspec.Struct):
    """`results` stand best first. `usage` counts what was read, the query once with every document and window."""

    id: str
    model: str
    results: list[RerankResult]
    usage: EmbeddingUsage
    meta: RerankMeta
