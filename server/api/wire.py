"""The bodies of chat requests and answers as OpenAI's clients have them, and of faults; types only, no behaviour.

Requests keep unknown fields legal (clients send new ones every month); `decode` names them to the client. Unions hold
at most one array type because msgspec allows no more: `str | list[Any]` fields are checked where they are read.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.knowledge import TierName

Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Positive = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Name = Annotated[str, Meta(min_length=1)]


# ---- chat completions -----------------------------------------------------------------------------------------------


class ContentPart(msgspec.Struct):
    """One part of a message; parts of another type than text are refused by models that cannot read them."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: dict[str, Any] | str | None = None
    input_audio: dict[str, Any] | None = None
    file: dict[str, Any] | None = None


class FunctionCall(msgspec.Struct):
    """`arguments` is JSON as text."""

    name: Name
    arguments: str


class AskedToolCall(msgspec.Struct):
    """A call the model made in an earlier turn, as the client sends it back."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    """`tool_calls` stand in an assistant's turn, `tool_call_id` in a tool's answer to one of them.

    `reasoning` is another name of `reasoning_content`; `function_call` and the role "function" are the older wire's.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[AskedToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    function_call: FunctionCall | None = None
    server_tool_calls: list["ServerToolCall"] | None = None


class ServerToolCall(msgspec.Struct):
    """A call that the server ran itself: what it brought is `output`, and with `is_error` what went wrong.

    Clients may send it back in the assistant's message, so that the model reads it again.
    """

    id: str
    function: FunctionCall
    output: str
    is_error: bool = False
    index: int | UnsetType = UNSET
    type: Literal["function"] = "function"


class HybridWeights(msgspec.Struct, forbid_unknown_fields=True):
    """How much each ranking counts; not both 0."""

    embedding_weight: Probability
    text_weight: Probability


class RankingOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`ranker` is a model for rerank, or `none`; without it the collection's own. It reads the `depth` nearest."""

    ranker: Name | None = None
    depth: Annotated[int, Meta(ge=1, le=1000)] | None = None
    score_threshold: Probability | None = None
    hybrid_search: HybridWeights | None = None


class AskedRetrieval(msgspec.Struct, forbid_unknown_fields=True):
    """Knowledge for one request. Without `collections` it is that of the assistant that is asked, or else all.

    `when`: "always" searches before the model reads, "auto" gives the model a tool to search with, "never", with which
    nothing else goes, takes the assistant's knowledge away. `tiers` are as in `/v1/retrieve`.
    """

    collections: Annotated[list[Name], Meta(min_length=1)] | None = None
    when: Literal["always", "auto", "never"] = "always"
    k: Annotated[int, Meta(ge=1, le=100)] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: RankingOptions | None = None
    tiers: Annotated[list[TierName], Meta(min_length=1)] | None = None


class StreamOptions(msgspec.Struct):
    """`continuous_usage_stats`, which is vLLM's, puts usage in every chunk. `include_obfuscation` is accepted: what
    OpenAI pads chunks with protects from who counts bytes on the way, and is not sent here.
    """

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class Generation(msgspec.Struct, kw_only=True):
    """What requests for text share. Beside OpenAI's there is what local servers add: `top_k`, `min_p`,
    `repetition_penalty`, `ignore_eos`; of vLLM's `min_tokens`, before which neither the model nor `stop_token_ids`
    end an answer, and `return_token_ids`. `adapter` names one of the model's LoRA adapters. llama.cpp and vLLM call an
    answer's format `json_schema`, `grammar` (GBNF or Lark), `guided_*` and `structured_outputs`.
    """

    model: Name
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: Annotated[str, Meta(min_length=1)] | Annotated[list[Name], Meta(max_length=4)] | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    ignore_eos: bool | None = None
    min_tokens: Natural | None = None
    stop_token_ids: Annotated[list[Natural], Meta(max_length=128)] | None = None
    return_token_ids: bool | None = None
    adapter: Name | None = None
    response_format: dict[str, Any] | None = None
    json_schema: str | dict[str, Any] | None = None
    grammar: str | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: dict[str, Any] | None = None
    user: str | None = None


class ChatRequest(Generation, kw_only=True):
    """OpenAI's request, with `chat_template_kwargs`, variables for the model's chat template such as
    {"enable_thinking": false}. `continue_final_message` goes on with the last message, which is the assistant's, where
    otherwise a new turn begins; `add_generation_prompt: false` leaves the beginning of that turn to the model.
    `functions` and `function_call` are OpenAI's older names.
    """

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[str] | None = None
    functions: Annotated[list[dict[str, Any]], Meta(min_length=1)] | None = None
    function_call: str | dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    retrieval: AskedRetrieval | None = None


class Annotation(msgspec.Struct, tag_field="type", tag="file_citation"):
    """Where a part of the answer is quoted from. `start_index`:`end_index` are characters of the answer.

    `answer_start_index`:`answer_end_index` are the few that answer the question, which `answer` repeats.
    """

    file_id: str
    filename: str
    index: int
    start_index: int
    end_index: int
    chunk_id: str
    uri: str
    quote: str
    answer: str | UnsetType = UNSET
    answer_start_index: int | UnsetType = UNSET
    answer_end_index: int | UnsetType = UNSET


class UrlCitation(msgspec.Struct):
    url: str
    title: str
    start_index: int
    end_index: int


class UrlAnnotation(msgspec.Struct, tag_field="type", tag="url_citation"):
    """A page that a remote model quotes; the indices are characters of the answer."""

    url_citation: UrlCitation


class ToolCall(msgspec.Struct):
    id: str
    type: Literal["function"]
    function: FunctionCall


class AnswerMessage(msgspec.Struct):
    """`content` is null where the model only called tools. `server_tool_calls` are those that the server has run."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    annotations: list[Annotation | UrlAnnotation] = []
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    function_call: FunctionCall | UnsetType = UNSET
    server_tool_calls: list[ServerToolCall] | UnsetType = UNSET


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(msgspec.Struct):
    """Log-probabilities of the answer's tokens before any sampling parameter changed them."""

    content: list[TokenLogprob]
    refusal: None = None


class Choice(msgspec.Struct):
    index: int
    message: AnswerMessage
    finish_reason: str
    logprobs: Logprobs | None = None
    token_ids: list[int] | UnsetType = UNSET


class PromptTokensDetails(msgspec.Struct):
    cached_tokens: int = 0


class CompletionTokensDetails(msgspec.Struct):
    reasoning_tokens: int = 0


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class FoundPassage(msgspec.Struct):
    """A passage that the model was given; `citation` is the number by which it names it."""

    citation: int
    collection: str
    file_id: str
    filename: str
    chunk_id: str
    uri: str
    score: float
    text: str


class ChatCompletion(msgspec.Struct):
    """`retrieval` holds what was found, for a request that has a field of that name."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: str
    prompt_token_ids: list[int] | UnsetType = UNSET
    retrieval: list[FoundPassage] | UnsetType = UNSET


class FunctionDelta(msgspec.Struct):
    """More of a call's arguments; its name stands in the first one alone."""

    arguments: str
    name: str | UnsetType = UNSET


class ToolCallDelta(msgspec.Struct):
    """`id`, `type` and the name stand in a call's first delta alone: clients join what comes again."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class ServerToolDelta(msgspec.Struct, omit_defaults=True):
    """A call of the server: first its `id`, `function` and `type`, and once it is done its `output`.

    The deltas of one `index` together are a ServerToolCall.
    """

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionCall | UnsetType = UNSET
    output: str | UnsetType = UNSET
    is_error: bool | UnsetType = UNSET


class ChunkDelta(msgspec.Struct, omit_defaults=True):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET
    function_call: FunctionDelta | UnsetType = UNSET
    annotations: list[Annotation | UrlAnnotation] | UnsetType = UNSET
    server_tool_calls: list[ServerToolDelta] | UnsetType = UNSET


class ChunkChoice(msgspec.Struct):
    index: int
    delta: ChunkDelta
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(msgspec.Struct):
    """One event of a streamed answer. `usage` stands only where the client asked for it, `prompt_token_ids` and
    `retrieval` in the first one alone."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    usage: Usage | UnsetType | None = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    retrieval: list[FoundPassage] | UnsetType = UNSET


# ---- errors ---------------------------------------------------------------------------------------------------------


class ErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    error: ErrorBody
