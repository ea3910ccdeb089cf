"""The bodies of rerank requests and answers as the clients of Cohere, Jina, TEI and vLLM have them; types only."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import Name, Positive
from server.api.wire_embeddings import EmbeddingUsage

Many = Meta(min_length=1, max_length=2048)


class RerankDocument(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """`documents` are ranked, or in TEI's words `texts`; which of them there is decides the shape of the answer.

    `top_n` bounds the results; all come without it. `return_documents`, in TEI's words `return_text`, puts each text
    beside its score. `model` may be left out where there is only one reranker, as TEI's clients do.
    """

    query: Name
    model: Name | None = None
    documents: Annotated[list[str | RerankDocument], Many] | None = None
    texts: Annotated[list[str], Many] | None = None
    top_n: Positive | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    raw_scores: bool | None = None


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


class RankedText(msgspec.Struct):
    """One of TEI's answer, which is a list of these, best first."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class ScoreRequest(msgspec.Struct):
    """How well texts of `text_2` answer `text_1`: one for all of them, or as many, each for its own."""

    text_1: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(min_length=1, max_length=128)]
    text_2: str | Annotated[list[str], Many]
    model: Name | None = None


class Score(msgspec.Struct):
    index: int
    object: Literal["score"]
    score: float


class ScoreReply(msgspec.Struct):
    """Scores are 0 to 1, higher is better, in the order of the pairs."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Score]
    usage: EmbeddingUsage
