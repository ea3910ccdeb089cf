"""The bodies of embedding requests and answers as OpenAI's clients have them; types only."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.wire import Name, Positive


class EmbeddingsRequest(msgspec.Struct):
    """`input`: a text, texts, the token ids of one text, or of several."""

    model: Name
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None


class Embedding(msgspec.Struct):
    """`embedding` is a list of numbers, or base64 of little-endian float32 when that was asked for."""

    object: Literal["embedding"]
    index: int
    embedding: str | list[float]


class EmbeddingUsage(msgspec.Struct):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
