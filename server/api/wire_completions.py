"""The bodies of completion requests and answers, OpenAI's older wire; types only."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import Generation, Natural, Usage


class CompletionRequest(Generation, kw_only=True):
    """`prompt`: a text, texts, the token ids of one prompt, or of several. `max_tokens` 0 reads and says nothing; left
    out it is 16.
    """

    prompt: str | list[Any]
    max_tokens: Natural | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    suffix: str | None = None
    best_of: Annotated[int, Meta(ge=1, le=16)] | None = None


class CompletionLogprobs(msgspec.Struct):
    """`text_offset`: where each token begins, in characters from the start of the text. The first token of an echoed
    prompt follows nothing, so its log-probability is null. `top_logprobs` always have the token itself.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(msgspec.Struct):
    """`prompt_token_ids` stand in a choice's first event alone."""

    text: str
    index: int
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class Completion(msgspec.Struct):
    """A whole answer, or one event of a streamed one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
