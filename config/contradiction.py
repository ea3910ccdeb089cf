"""What each engine can do and which keys it honours, and so what is wrong between the keys of one model's entry."""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from config.section import Outside
from config.source import NGRAM, names_gguf

CONTRADICTS = "contradicts"
"""The type of the pydantic error that stands for every Contradiction of one model."""

LocalEngine = Literal["auto", "openvino", "llamacpp", "transformers", "exllamav2", "exllamav3"]
Task = Literal["chat", "embed", "rerank"]
TASKS: dict[str, tuple[Task, ...]] = {
    "auto": ("chat", "embed", "rerank"),
    "openvino": ("chat", "embed", "rerank"),
    "llamacpp": ("chat",),
    "transformers": ("chat",),
    "exllamav2": ("chat",),
    "exllamav3": ("chat",),
    "reader": ("chat",),
    "echo": ("chat",),
    "remote": ("chat", "embed", "rerank"),
}
"""What each engine can do, by the word a recipe writes; the first is what it does unless `task` says otherwise."""


@dataclass(frozen=True)
class Contradiction:
    """What is wrong at `key` because of the other keys of the same model."""

    key: str
    message: str
    suggestion: str | None = None


_CHAT_ONLY = (
    *("context", "parallel", "cache", "cache_tokens", "weights", "draft", "draft_tokens"),
    *("projector", "adapters", "gpu_split", "tensor_parallel"),
)


HONOURED: dict[str, tuple[str, ...]] = {
    "draft": ("openvino", "exllamav2", "exllamav3"),
    "weights": ("openvino",),
    "cache_tokens": ("openvino", "llamacpp", "exllamav2", "exllamav3"),
    "cache": ("openvino", "llamacpp", "exllamav2", "exllamav3"),
    "precision": ("openvino", "llamacpp", "transformers"),
    "threads": ("openvino", "llamacpp", "transformers"),
    "projector": ("llamacpp",),
    "adapters": ("exllamav2", "exllamav3"),
    "gpu_split": ("exllamav2", "exllamav3"),
    "tensor_parallel": ("exllamav3",),
}
"""Keys that not every engine honours, and those that do."""

_PROCESSOR, _GPU = ("auto", "f32", "bf16", "q8"), ("auto", "fp16", "q8", "q6", "q4")
CACHES: dict[str, tuple[str, ...]] = {
    "openvino": _PROCESSOR,
    "llamacpp": _PROCESSOR,
    "exllamav2": _GPU,
    "exllamav3": _GPU,
}
"""How each engine that has the choice can keep keys and values."""


def contradictions(spec: Mapping[str, object], defaults: Mapping[str, object]) -> Iterator[Contradiction]:
    """What is wrong between the keys of one model's entry that are each right by themselves.

    Reads plain values and passes over what has the wrong shape, as `config.recipe.disagreements` does. A key with its
    default value counts as left out, so that a recipe with every default written out is the same recipe.
    """
    engine, said = str(spec.get("engine")), _said(spec, defaults)
    sources = [str(spec[key]) for key in ("source", "draft", "projector") if isinstance(spec.get(key), str)]
    if "download" in said and sources and not any(source.startswith("hf:") for source in sources):
        yield Contradiction("download", "only a source on the hub is downloaded, hf:OWNER/NAME")
    task = spec.get("task", "chat")
    if engine not in get_args(LocalEngine):
        return
    if task in TASKS["auto"]:
        if task not in TASKS[engine]:
            yield Contradiction("task", f"the engine {engine} does not {task}; auto and openvino do")
        if task != "chat":
            for key in _CHAT_ONLY:
                if key in said:
                    yield Contradiction(key, f"a model for {task} has no {key}; it is for task: chat")
        if task != "embed" and "dimensions" in said:
            yield Contradiction("dimensions", f"a model for {task} has no vectors to cut; it is for task: embed")
        if task != "embed" and "prompts" in said:
            yield Contradiction("prompts", f"a model for {task} puts nothing before texts; it is for task: embed")
    yield from _misplaced(engine, str(task), spec.get("source"))
    yield from _unsupported(engine, spec, said)


def _misplaced(engine: str, task: str, source: object) -> Iterator[Contradiction]:
    if not isinstance(source, str):
        return
    if not names_gguf(source):
        if engine == "llamacpp":
            yield Contradiction("engine", "llamacpp reads .gguf files; folders are for the other engines", "auto")
    elif task in ("embed", "rerank"):
        yield Contradiction("source", f"models for {task} are read from folders, not from .gguf files")
    elif engine in ("transformers", "exllamav2", "exllamav3"):
        yield Contradiction("engine", f"{engine} reads folders; .gguf files are for openvino and llamacpp", "auto")


def _unsupported(engine: str, spec: Mapping[str, object], said: Set[str]) -> Iterator[Contradiction]:
    context, kept = spec.get("context"), spec.get("cache_tokens")
    if type(context) is int and type(kept) is int and kept < context:
        yield Contradiction("cache_tokens", f"{kept} tokens are less than one context of {context}")
    if "draft_tokens" in said and spec.get("draft") is None:
        yield Contradiction("draft_tokens", f"nothing guesses ahead; it goes with draft: {NGRAM} or a source")
    for key, honouring in HONOURED.items():
        if key in said and engine not in ("auto", *honouring):
            yield Contradiction(key, f"the engine {engine} takes no {key}; that is for {_listed(honouring)}")
    kept = spec.get("cache", "auto")
    takes = CACHES.get(engine)
    if takes is not None and kept not in takes and any(kept in each for each in CACHES.values()):
        yield Contradiction("cache", f"the engine {engine} keeps no {kept}; it takes {', '.join(takes)}")
    adapters = spec.get("adapters")
    if isinstance(adapters, list | tuple):
        names = [Path(str(each)).name for each in adapters]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            yield Contradiction("adapters", f"two folders are named {twice[0]}, and requests name them by that")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _said(spec: Mapping[str, object], defaults: Mapping[str, object]) -> set[str]:
    """The keys that say something else than would hold without them."""
    return {key for key, default in defaults.items() if _differs(spec.get(key, default), default)}


def _differs(value: object, default: object) -> bool:
    if isinstance(value, Outside):
        return value.strip().lower() != str(default).lower()
    return bool(value != default)
