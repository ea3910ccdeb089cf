"""Anthropic's Messages wire: the bodies its SDKs and Claude Code send and read; types only, no behaviour.

A block of a request is one type with every field there is, and not a union over its `type`: new types come every
month, and whether one can be read is said with its place and its name (`messages.asked`).
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import AskedRetrieval, Name, Natural, Probability, ServerToolCall, ServerToolDelta

ANTHROPIC = "anthropic-version"
"""The header that all of Anthropic's clients send and no others."""

# ---- requests -------------------------------------------------------------------------------------------------------


class MessagesBlock(msgspec.Struct):
    """One block of a message or of a tool's result; which fields it has follows from `type`.

    `source` is an object in documents and images, a text in search results.
    """

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | list["MessagesBlock"] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    source: str | dict[str, Any] | None = None
    title: str | None = None
    context: str | None = None
    tool_name: str | None = None


class MessagesTurn(msgspec.Struct):
    """One message. Claude Code puts `system` ones between the others."""

    role: Literal["user", "assistant", "system"]
    content: str | list[MessagesBlock]


class MessagesTool(msgspec.Struct):
    """A function of the client (`type` "custom" or none), or a tool of Anthropic's servers, known by its `type`."""

    name: Name | None = None
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class MessagesToolChoice(msgspec.Struct):
    """`name` goes with the type "tool"."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class MessagesThinking(msgspec.Struct):
    """`display` "omitted" leaves the text of thinking out of the answer."""

    type: str
    budget_tokens: Natural | None = None
    display: str | None = None


class MessagesOutputFormat(msgspec.Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class MessagesOutputConfig(msgspec.Struct):
    effort: str | None = None
    format: MessagesOutputFormat | None = None


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """What a prompt is made of; `/v1/messages/count_tokens` takes it alone. `output_format` is the older place of
    `output_config.format`.
    """

    model: Name
    messages: Annotated[list[MessagesTurn], Meta(min_length=1)]
    system: str | list[MessagesBlock] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: MessagesToolChoice | None = None
    thinking: MessagesThinking | None = None
    output_config: MessagesOutputConfig | None = None
    output_format: MessagesOutputFormat | None = None
    cache_control: dict[str, Any] | None = None
    """A hint: every prompt's beginning is kept, marked or not."""
    retrieval: AskedRetrieval | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """`max_tokens` 0 reads the prompt into the cache and says nothing. `thread` and `compaction` are refused: with them
    a client would leave out what it takes this server to remember, or to have shortened.
    """

    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    stop_sequences: Annotated[list[Name], Meta(max_length=64)] | None = None
    stream: bool | None = None
    temperature: Probability | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    thread: dict[str, Any] | None = None
    compaction: dict[str, Any] | None = None


# ---- answers --------------------------------------------------------------------------------------------------------


class CharLocation(msgspec.Struct, tag="char_location"):
    """What a text block quotes: characters `start_char_index`:`end_char_index` of a document's text.

    `document_index` numbers the passages found for this turn, from 0; `file_id` is the document's id.
    """

    cited_text: str
    document_index: int
    document_title: str
    start_char_index: int
    end_char_index: int
    file_id: str


class TextBlock(msgspec.Struct, tag="text"):
    text: str
    citations: list[CharLocation] | UnsetType = UNSET


class ThinkingBlock(msgspec.Struct, tag="thinking"):
    """`signature` is opaque to clients, which send it back."""

    thinking: str
    signature: str


class ToolUseBlock(msgspec.Struct, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class McpToolUseBlock(msgspec.Struct, tag="mcp_tool_use"):
    """A call that this server ran; for clients that say in `anthropic-beta` that they know such blocks."""

    id: str
    name: str
    input: dict[str, Any]
    server_name: Literal["hearth"] = "hearth"


class McpToolResultBlock(msgspec.Struct, tag="mcp_tool_result"):
    """What the call brought, or with `is_error` what went wrong."""

    tool_use_id: str
    is_error: bool
    content: list[TextBlock]


Content = TextBlock | ThinkingBlock | ToolUseBlock | McpToolUseBlock | McpToolResultBlock


class MessagesTokensDetails(msgspec.Struct):
    thinking_tokens: int


class MessagesUsage(msgspec.Struct):
    """The prompt's tokens are `input_tokens`, which were computed, and `cache_read_input_tokens`, which had been."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    output_tokens_details: MessagesTokensDetails


StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class Message(msgspec.Struct):
    """A whole answer. A stream begins with one that has neither content nor a reason to stop.

    `server_tool_calls` are those that the server has run, for clients that have not asked for them as blocks.
    """

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Content]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessagesUsage
    server_tool_calls: list[ServerToolCall] | UnsetType = UNSET


class MessageTokensCount(msgspec.Struct):
    input_tokens: int


# ---- events of a stream ---------------------------------------------------------------------------------------------


class TextDelta(msgspec.Struct, tag="text_delta"):
    text: str


class ThinkingDelta(msgspec.Struct, tag="thinking_delta"):
    thinking: str


class SignatureDelta(msgspec.Struct, tag="signature_delta"):
    signature: str


class InputJsonDelta(msgspec.Struct, tag="input_json_delta"):
    """More of the JSON of a call's input; the pieces of one block together are its text."""

    partial_json: str


class CitationsDelta(msgspec.Struct, tag="citations_delta"):
    citation: CharLocation


Delta = TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta | CitationsDelta


class MessageStart(msgspec.Struct, tag="message_start"):
    message: Message


class BlockStart(msgspec.Struct, tag="content_block_start"):
    index: int
    content_block: Content


class BlockDelta(msgspec.Struct, tag="content_block_delta"):
    index: int
    delta: Delta


class BlockStop(msgspec.Struct, tag="content_block_stop"):
    index: int


class MessageStopped(msgspec.Struct):
    stop_reason: StopReason | None
    stop_sequence: str | None


class MessageDelta(msgspec.Struct, tag="message_delta"):
    """Why the answer ended, and all it used: what was read from the cache is known only now.

    `server_tool_calls` as in the whole message.
    """

    delta: MessageStopped
    usage: MessagesUsage
    server_tool_calls: list[ServerToolCall] | UnsetType = UNSET


class MessageStop(msgspec.Struct, tag="message_stop"):
    pass


class Ping(msgspec.Struct, tag="ping"):
    """A sign of life, while there is nothing to say; where the server begins or ends a call of its own, that call."""

    server_tool_calls: list[ServerToolDelta] | UnsetType = UNSET


# ---- models and errors ----------------------------------------------------------------------------------------------


class AnthropicModel(msgspec.Struct, tag="model"):
    """A model as Anthropic's clients list it; `max_input_tokens` is null where it is not known."""

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None


class AnthropicModelList(msgspec.Struct):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class MessagesFaultDetails(msgspec.Struct):
    """What Anthropic's SDKs read of a fault: told this one, their tool runners go on without a thread."""

    error_code: Literal["thread_unsupported_request"]
    unsupported: list[str]


class MessagesFault(msgspec.Struct):
    type: str
    message: str
    details: MessagesFaultDetails | UnsetType = UNSET


class MessagesFaultReply(msgspec.Struct, tag="error"):
    error: MessagesFault
    request_id: str | UnsetType = UNSET


Event = MessageStart | Ping | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | MessagesFaultReply
