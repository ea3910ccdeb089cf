"""The bodies that tell which models there are and what each can do; types only."""

from typing import Any, Literal

import msgspec


class ModelStatus(msgspec.Struct, omit_defaults=True):
    """In the words of llama.cpp's router. `progress` says what loading is at; `error` why it failed; `cold` that its
    weights are in cold storage, from which the next request brings them back."""

    value: Literal["loaded", "loading", "unloaded"]
    failed: bool = False
    error: str | None = None
    progress: str | None = None
    cold: bool = False


class ModelCapabilities(msgspec.Struct):
    """What the model can do, under the names Mistral's API has for the first three and for `vision`.

    Those that only a loaded model tells are false until then.
    """

    completion_chat: bool
    completion_fim: bool
    function_calling: bool
    structured_outputs: bool
    reasoning: bool
    logprobs: bool
    vision: bool
    audio: bool
    embeddings: bool
    rerank: bool


class ModelArchitecture(msgspec.Struct):
    """What goes in and comes out: text, image, audio; embeddings, scores."""

    input_modalities: list[str]
    output_modalities: list[str]


class ModelMeta(msgspec.Struct):
    """As llama.cpp has it: the context of one request in tokens, the bytes of the weights, the length of a vector."""

    n_ctx: int
    size: int
    n_embd: int | None


class ModelCard(msgspec.Struct):
    """`context_length`, `max_model_len` and `max_context_length` are the longest request in tokens, prompt and answer
    together; null until the model was loaded once, as is `meta`.

    `engine_reason` says why this engine was chosen, where the recipe left that open. `dimensions` is the length of an
    embedder's vectors.
    """

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    name: str
    aliases: list[str]
    task: str
    engine: str
    engine_reason: str | None
    state: str
    status: ModelStatus
    description: str | None
    context_length: int | None
    max_model_len: int | None
    max_context_length: int | None
    dimensions: int | None
    capabilities: ModelCapabilities
    supported_parameters: list[str]
    architecture: ModelArchitecture
    meta: ModelMeta | None
    knowledge: list[str]
    parent: str | None = None
    permission: list[Any] = []


class ModelList(msgspec.Struct):
    object: Literal["list"]
    data: list[ModelCard]
