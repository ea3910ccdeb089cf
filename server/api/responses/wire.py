"""What the Responses API sends and takes, as OpenAI and the Open Responses specification have it; types only.

Requests keep unknown fields, items and tools legal: clients send new ones every month, and are told what had no effect.
Answers carry every field of the specification always, null where there is nothing to say.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import Annotation, AskedRetrieval, Name, Penalty, Positive, Probability, Seed, TokenLogprob

Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


# ---- requests -------------------------------------------------------------------------------------------------------


class AskedReasoning(msgspec.Struct):
    """`effort` is the model's own word, low or high for most; with `summary` the reasoning comes as its summary."""

    effort: str | None = None
    summary: str | None = None


class AskedText(msgspec.Struct):
    """`format`: {"type": "text"}, "json_object", {"type": "json_schema", "name": ..., "schema": ...}; and of ours
    {"type": "regex", "pattern": ...} and {"type": "lark", "grammar": ...}.
    """

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class AskedStreamOptions(msgspec.Struct):
    include_obfuscation: bool | None = None


class CreateResponse(msgspec.Struct):
    """OpenAI's request, with what local servers add: `top_k`, `min_p`, `repetition_penalty`, `seed` and
    `chat_template_kwargs`. `input` is a text or items; items and tools of unknown types are passed over.
    """

    model: Name
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: AskedStreamOptions | None = None
    include: list[str] | None = None
    max_output_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Seed | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Positive | None = None
    text: AskedText | None = None
    reasoning: AskedReasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: Metadata | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    retrieval: AskedRetrieval | None = None


class Compact(msgspec.Struct):
    """A conversation to make short: `input` after what `previous_response_id` stands for."""

    model: Name
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None


# ---- output items ---------------------------------------------------------------------------------------------------


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    text: str
    annotations: list[Annotation] = []
    logprobs: list[TokenLogprob] = []


class OutputRefusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """Why there is no answer of the form that was wanted."""

    refusal: str


class OutputMessage(msgspec.Struct, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    content: list[OutputText | OutputRefusal]
    role: Literal["assistant"] = "assistant"


class FunctionCallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """`call_id` is what the client's function_call_output names; `arguments` is JSON as text."""

    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus


class McpCallItem(msgspec.Struct, tag_field="type", tag="mcp_call"):
    """A call that this server ran, in OpenAI's form of one that a server runs: `server_label` is "hearth".

    `output` is what it brought; where it went wrong, `error` says what.
    """

    id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "failed"]
    output: str | None = None
    error: str | None = None
    server_label: Literal["hearth"] = "hearth"
    approval_request_id: None = None


class SearchedPassage(msgspec.Struct):
    """A passage that was found, its `score` from 0 to 1."""

    file_id: str
    filename: str
    score: float
    text: str
    attributes: dict[str, str | int | float | bool]


class FileSearchItem(msgspec.Struct, tag_field="type", tag="file_search_call"):
    """A search of collections; `results` where `include` has file_search_call.results."""

    id: str
    queries: list[str]
    status: Literal["in_progress", "searching", "completed", "failed"]
    results: list[SearchedPassage] | None = None


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    text: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    text: str


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What the model thought: in `content`, or in `summary` where the client asked for one."""

    id: str
    summary: list[SummaryText]
    content: list[ReasoningText]
    status: ItemStatus
    encrypted_content: str | UnsetType = UNSET


class CompactionItem(msgspec.Struct, tag_field="type", tag="compaction"):
    """What a conversation came to, for a later `input`. Opaque to clients."""

    id: str
    encrypted_content: str


OutputItem = OutputMessage | FunctionCallItem | ReasoningItem | McpCallItem | FileSearchItem


# ---- answers --------------------------------------------------------------------------------------------------------


class InputTokensDetails(msgspec.Struct):
    cached_tokens: int = 0


class OutputTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseFault(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    reason: Literal["max_output_tokens"]


class ReasoningConfig(msgspec.Struct):
    effort: str | None
    summary: str | None


class TextConfig(msgspec.Struct):
    format: dict[str, Any]
    verbosity: str | UnsetType = UNSET


class Response(msgspec.Struct, frozen=True):
    """One answer and what it was asked with. Times are Unix seconds."""

    id: str
    created_at: int
    status: Status
    model: str
    instructions: str | None
    previous_response_id: str | None
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    text: TextConfig
    reasoning: ReasoningConfig
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    max_output_tokens: int | None
    max_tool_calls: int | None
    truncation: Literal["auto", "disabled"]
    store: bool
    metadata: dict[str, str]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: str | None
    output: list[OutputMessage | FunctionCallItem | ReasoningItem | McpCallItem | FileSearchItem] = []
    completed_at: int | None = None
    error: ResponseFault | None = None
    incomplete_details: IncompleteDetails | None = None
    usage: ResponseUsage | None = None
    background: bool = False
    service_tier: str = "default"
    object: Literal["response"] = "response"


class DeletedResponse(msgspec.Struct):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class ItemList(msgspec.Struct):
    """A page of items; the next one begins `after` its `last_id`."""

    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class Compacted(msgspec.Struct):
    """The user's messages, and one compaction item that stands for everything else: the `input` of a new chain."""

    id: str
    created_at: int
    output: list[dict[str, Any]]
    usage: ResponseUsage
    object: Literal["response.compaction"] = "response.compaction"


class InputTokens(msgspec.Struct):
    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"
