"""The bodies of embedding requests and answers as OpenAI's clients have them; types only."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from server.api.wire import Name, Positive

InputType = Literal["query", "document", "passage", "search_query", "search_document"]
"""What a text is to a search, by the words of those who have this field; a passage is a document."""


class EmbeddingsRequest(msgspec.Struct):
    """`input`: a text, texts, the token ids of one text, or of several.

    `input_type` has the model's own words for queries or documents put before them; without it they stay as they are.
    """

    model: Name
    input: Annotated[str, Meta(min_length=1)] | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None
    input_type: InputType | None = None

    @property
    def side(self) -> Literal["query", "document"] | None:
        if self.input_type is None:
            return None
        return "query" if self.input_type.endswith("query") else "document"


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
