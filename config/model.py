"""The `models` section: which engine serves which weights. Knows no engine, only what each is told."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from config.contradiction import CONTRADICTS, TASKS, Contradiction, LocalEngine, Task, contradictions
from config.fallback import FallbackTo
from config.places import Adapter, is_file
from config.prompts import Prompts
from config.remote import RemoteId, ServerUrl
from config.section import Alias, Count, Duration, Flag, Fraction, Guesses, Rate, Secret, Section, wrong
from config.source import Draft, Projector, Source, architecture

__all__ = [
    "DEFAULTS",
    "Draft",
    "EchoModel",
    "LocalModel",
    "ModelEntry",
    "ModelSpec",
    "Projector",
    "ReaderModel",
    "RemoteModel",
    "Source",
    "WorkerSpec",
    "tasks_of",
]


class _AnyModel(Section):
    """The keys every model has."""

    aliases: tuple[Alias, ...] = Field(
        default=(),
        description="Other ids clients may use for this model, such as gpt-4o-mini; claude-* stands for every id that "
        "begins so.",
    )
    queue: Count | None = Field(
        default=None, description="How many requests may wait for this model; none takes server.limits.queue."
    )
    deadline: Duration | None = Field(
        default=None,
        description="End a request that has not been answered after this long, such as 10m, with a fault; none waits.",
    )
    fallback: FallbackTo | None = Field(
        default=None,
        description="The chat model that answers while this one is full, loading or down: its name, or {to: NAME, "
        "queue: N}. For chat; requests marked local_only never go there.",
    )


class _Loaded(_AnyModel):
    """The keys of a model in the memory of this machine."""

    idle_unload: Duration | None = Field(
        default=None,
        description="Free the model's memory after this long without requests, such as 30m; none keeps it.",
    )
    pin: Flag = Field(
        default=False,
        description="Never unload it to make room for another model, and never move its weights to cold storage; for "
        "recipes with policies.tiering.models.",
    )

    @field_validator("pin")
    @classmethod
    def _stays(cls, pin: bool, info: ValidationInfo) -> bool:
        if pin and info.data.get("idle_unload") is not None:
            raise wrong("keeps the model in memory, and idle_unload takes it out; leave one of both out")
        return pin


class _Weights(_Loaded):
    """The keys of a model that computes."""

    source: Source = Field(
        description="The weights: a .gguf file, a folder with config.json and safetensors, "
        '"pip:NAME" for such a folder inside an installed package, "hf:OWNER/NAME[@REVISION][/FILE.gguf]" on the '
        'Hugging Face hub, or "made:NAME" for a small model that Hearth makes itself, for trying clients: automaton, '
        "random, reranker or sight."
    )
    download: Flag = Field(
        default=False,
        description="Whether a source on the hub may be fetched when it is not on disk; else `hearth pull` fetches it.",
    )
    precision: Literal["auto", "f32", "bf16"] = Field(
        default="auto",
        description="Arithmetic: auto takes bf16 where the processor computes in it, f32 elsewhere, "
        "for chat with activations of 8 bits where weights are quantised; f32 is exact.",
    )
    threads: Count | None = Field(default=None, description="Processor threads; none leaves it to the engine.")


class LocalModel(_Weights):
    """A model computed on this machine: one that generates, an embedder or a reranker."""

    engine: LocalEngine = Field(
        description="auto picks the best engine for the weights and this machine and says why; openvino computes "
        "llama, mistral and qwen models and encoders on the processor; llamacpp any .gguf file; transformers any "
        "folder that library reads; exllamav2 and exllamav3 folders on an NVIDIA GPU, the first in EXL2, GPTQ or AWQ "
        "of 4 bits or fp16, the second in EXL3 or fp16."
    )
    task: Task = Field(
        default="chat",
        description="What the model does: chat generates text, embed turns texts into vectors, rerank scores "
        "documents for a query.",
    )
    context: Count | None = Field(
        default=None,
        description="The longest conversation in tokens, answer included; none takes the model's own, at most 8192. "
        "For chat.",
    )
    parallel: Count = Field(
        default=16, description="How many answers are computed at once; further requests wait. For chat."
    )
    cache: Literal["auto", "f32", "bf16", "fp16", "q8", "q6", "q4"] = Field(
        default="auto",
        description="How keys and values are kept: auto as precisely as the engine computes; q8 takes half the memory "
        "of bf16 and is a little slower. openvino and llamacpp take f32, bf16 and q8, exllamav2 and exllamav3 fp16, "
        "q8, q6 and q4. For chat.",
    )
    cache_tokens: Count | None = Field(
        default=None,
        description="How many tokens of all conversations are kept in memory, at least one context; none takes two. "
        "For chat.",
    )
    weights: Literal["int8", "float"] = Field(
        default="int8",
        description="How weights that are not quantised yet are held: int8 in groups of 32, or float as they are, "
        "which takes four times the memory. For chat.",
    )
    draft: Draft | None = Field(
        default=None,
        description="Guesses tokens ahead, which are checked several at a time: ngram guesses from the conversation "
        "itself; a source names a small model with the same tokenizer. Answers stay the same, but for rounding. "
        "For chat.",
    )
    draft_tokens: Guesses = Field(default=4, description="How many tokens are guessed at a time. For chat.")
    projector: Projector | None = Field(
        default=None,
        description="What lets the model see pictures: the .gguf file made for it (mmproj-*.gguf), "
        '"hf:OWNER/NAME[@REVISION]/FILE.gguf", or "made:sight" for the model of that name; none makes it refuse them. '
        "For llamacpp.",
    )
    adapters: tuple[Adapter, ...] = Field(
        default=(),
        description="Folders of LoRA adapters with adapter_config.json. A request names one by its folder's name in "
        "`adapter`; one for another adapter waits until the answers before it are done. For exllamav2 and exllamav3.",
    )
    gpu_split: tuple[Rate, ...] = Field(
        default=(),
        description="How many GB of each GPU the model may take, in their order; none takes one GPU, or fills one "
        "after another. For exllamav2 and exllamav3.",
    )
    tensor_parallel: Flag = Field(
        default=False,
        description="Whether every layer is computed by all GPUs together, rather than some layers by each. For "
        "exllamav3.",
    )
    dimensions: tuple[Count, ...] = Field(
        default=(),
        description="Lengths to which clients may have the vectors cut, which fits models that were trained for it "
        "(Matryoshka). For embed.",
    )

    prompts: Prompts | None = Field(
        default=None,
        description="What goes before queries and documents, {query: TEXT, document: TEXT}; none takes what the "
        "model's folder says in config_sentence_transformers.json. For embed.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = [*contradictions(self.model_dump(), DEFAULTS), *self._foreign()]
        if found:
            text = "; ".join(f"{each.key}: {each.message}" for each in found)
            raise PydanticCustomError(CONTRADICTS, "{text}", {"text": text, "found": found})
        return self

    def _foreign(self) -> Iterator[Contradiction]:
        """Weights on this machine that are for another task than the recipe says."""
        if self.source.is_remote or self.source.is_made or self.source.is_gguf:
            return
        kind = architecture(self.source.path)
        # A decoder that was trained to embed says so by the modules of sentence-transformers.
        embeds = self.task == "embed" and is_file(self.source.path / "modules.json")
        if kind is not None and not embeds and self.task not in (right := tasks_of(kind)):
            message = f"the weights are those of a {kind}, which is for {' or '.join(right)}"
            yield Contradiction("task", message, right[0] if right[0] in TASKS[self.engine] else None)


DEFAULTS: dict[str, object] = {name: field.default for name, field in LocalModel.model_fields.items()}
"""What each key of a model of this machine stands for where it is left out."""


def tasks_of(kind: str) -> tuple[Task, ...]:
    """What weights of an architecture can do, by the endings Hugging Face gives its classes."""
    if kind.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return ("chat",)
    if kind.endswith("ForSequenceClassification"):
        return ("rerank",)
    return ("embed",)


class ReaderModel(_Weights):
    """A chat model without generation: it quotes the best sentence of the passages found, with its citation."""

    engine: Literal["reader"] = Field(description="reader answers only by quoting the knowledge it is given.")
    threshold: Fraction | None = Field(
        default=None,
        description='How sure the reader must be that a sentence answers, 0 to 1; below it the reader says "not in '
        'these documents". None takes what was measured with its weights.',
    )

    @property
    def task(self) -> Literal["chat"]:
        return "chat"


class EchoModel(_Loaded):
    """A chat model for trying clients: it sends the prompt back, token by token."""

    engine: Literal["echo"] = Field(description="echo sends the prompt back; it needs no weights.")
    context: Count = Field(default=8192, description="The longest request in tokens.")
    parallel: Count = Field(default=64, description="How many answers are sent at once; further requests wait.")
    tokens_per_second: Rate | None = Field(default=None, description="How fast it answers; none is as fast as it can.")

    @property
    def task(self) -> Literal["chat"]:
        return "chat"


class RemoteModel(_AnyModel):
    """A model of another server that speaks OpenAI's wire, another Hearth included; requests are only forwarded."""

    engine: Literal["remote"] = Field(description="remote forwards to another server; it needs no weights.")
    url: ServerUrl = Field(description="The server's base URL, such as https://api.example.com/v1.")
    secret: Secret | None = Field(
        default=None,
        description='The API key that the server asks for, as "${env:VARIABLE}" or "${file:path}"; none sends none.',
    )
    model: RemoteId | None = Field(
        default=None, description="The model's id on that server; none takes the id it has here."
    )
    task: Task = Field(
        default="chat",
        description="What the model does: chat generates text, embed turns texts into vectors, rerank scores "
        "documents for a query.",
    )
    prompts: Prompts | None = Field(
        default=None,
        description="What goes before queries and documents, {query: TEXT, document: TEXT}, where that server does not "
        "put it there; none adds nothing. For embed.",
    )
    context: Count | None = Field(
        default=None,
        description="The longest request in tokens, as clients are told; none takes what the server's list of models "
        "says.",
    )
    parallel: Count = Field(
        default=64, description="How many requests are with that server at once; further requests wait."
    )
    connect_timeout: Duration = Field(
        default=timedelta(seconds=5), description="How long connecting to the server may take, such as 5s."
    )
    read_timeout: Duration = Field(
        default=timedelta(minutes=5),
        description="How long the server may be silent within a request, before its first word too, such as 5m.",
    )
    proxies: Flag = Field(
        default=False, description="Whether to go through the HTTP proxies that the environment names."
    )

    @field_validator("prompts")
    @classmethod
    def _for_texts(cls, prompts: Prompts | None, info: ValidationInfo) -> Prompts | None:
        if prompts is not None and info.data.get("task", "embed") != "embed":
            raise wrong(f"a model for {info.data['task']} puts nothing before texts; it is for task: embed")
        return prompts

    @property
    def idle_unload(self) -> None:
        """Nothing of it is in memory."""


WorkerSpec = LocalModel | ReaderModel | EchoModel
"""What a worker process computes."""
ModelSpec = WorkerSpec | RemoteModel
ModelEntry = Annotated[ModelSpec, Field(discriminator="engine")]
