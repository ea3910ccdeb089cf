"""Ollama's wire: the bodies its clients send and read; types only, no behaviour. Times are nanoseconds."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from server.api.wire import Name, Penalty, Positive, Probability, Seed

# ---- requests -------------------------------------------------------------------------------------------------------


class OllamaFunction(msgspec.Struct):
    """A call; `arguments` is the object itself and not its JSON as text."""

    name: Name
    arguments: dict[str, Any]


class OllamaCall(msgspec.Struct):
    function: OllamaFunction
    id: str | UnsetType = UNSET


class OllamaMessage(msgspec.Struct):
    """`tool_name` says which call a tool's message answers, `tool_call_id` where the client knows its id."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[OllamaCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class OllamaOptions(msgspec.Struct):
    """What of `options` changes an answer here. A negative `num_predict` leaves the length to the model."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Probability | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Seed | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=2**31 - 1)] | None = None
    stop: str | list[Name] | None = None


class _Generating(msgspec.Struct, kw_only=True):
    """`format` is "json" or a JSON Schema. Answers are streamed unless `stream` is false."""

    model: Name
    stream: bool = True
    format: str | dict[str, Any] | None = None
    options: dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: Any = None


class OllamaChatRequest(_Generating, kw_only=True):
    """Without messages the model is loaded and nothing said."""

    messages: list[OllamaMessage] = []
    tools: list[dict[str, Any]] | None = None


class OllamaGenerateRequest(_Generating, kw_only=True):
    """`raw` prompts go to the model as they stand, others as a user's message after `system`."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None
    suffix: str | None = None
    template: str | None = None
    images: list[str] | None = None
    context: list[int] | None = None


class OllamaEmbedRequest(msgspec.Struct):
    """`truncate` false refuses a text that is too long, which is what happens in any case."""

    model: Name
    input: Name | Annotated[list[Name], Meta(min_length=1)]
    truncate: bool | None = None
    dimensions: Positive | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaEmbeddingsRequest(msgspec.Struct):
    """The older form, of one text."""

    model: Name
    prompt: Name
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class OllamaShowRequest(msgspec.Struct):
    """`name` is the older word for `model`."""

    model: str | None = None
    name: str | None = None
    verbose: bool | None = None


# ---- answers --------------------------------------------------------------------------------------------------------


class OllamaSaid(msgspec.Struct):
    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaCall] | UnsetType = UNSET


class _Timed(msgspec.Struct, kw_only=True):
    """A whole answer, or one line of a streamed one; the counts and times stand in the last.

    `load_duration` is from the request's arrival until the model had taken it, `prompt_eval_duration` from then to
    the first token, `eval_duration` from there to the end.
    """

    model: str
    created_at: str
    done: bool
    done_reason: str | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaChatReply(_Timed, kw_only=True):
    message: OllamaSaid


class OllamaGenerateReply(_Timed, kw_only=True):
    response: str
    thinking: str | UnsetType = UNSET


class OllamaEmbedReply(msgspec.Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int


class OllamaEmbeddingsReply(msgspec.Struct):
    embedding: list[float]


class OllamaDetails(msgspec.Struct):
    """Texts are empty where nothing is known."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(msgspec.Struct):
    """`digest` is the SHA-256 of the model's declaration; `size` the bytes of its weights, 0 until it was loaded."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaTags(msgspec.Struct):
    models: list[OllamaModel]


class OllamaRunning(msgspec.Struct):
    """A loaded model; `size` is of its weights and cache, `size_vram` what of it is not in main memory."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    size_vram: int
    context_length: int


class OllamaProcesses(msgspec.Struct):
    models: list[OllamaRunning]


class OllamaShown(msgspec.Struct):
    """`model_info` has the context under the key that `general.architecture` begins."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(msgspec.Struct):
    version: str


class OllamaFault(msgspec.Struct):
    error: str
