"""Whether the models of a recipe fit the memory of this machine: an estimate, made before anything is loaded.

Reads headers of files and the system's own account of its memory; loads no weights and knows nothing of HTTP. An
estimate is what the worker's process holds (VmRSS of /proc/PID/status) after a prompt as long as the context.
"""

import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from config import Recipe
from config.model import EchoModel, LocalModel, ModelSpec, ReaderModel, RemoteModel
from server.models import cuda, native, openvino_kernel, projector
from server.models.choice import ON_GPU, Choice, choose
from server.models.cold_weights import Takes, is_away, local_sources, memory_of, told_of
from server.models.header import Header, config, parts
from server.models.kept import found

LONGEST_CONTEXT = 8192
"""Tokens of context where the recipe gives none and the model was trained for more."""
_CONTEXTS = 2
"""How many contexts of keys and values are kept where the recipe gives no `cache_tokens`."""

_WORKER = 44 * 10**6
"""A worker without an engine: the interpreter, numpy, the frames."""
_LLAMACPP = 24 * 10**6
_LLAMACPP_BATCH = 512
_OPENVINO_ENCODER = 135 * 10**6
_TORCH = 370 * 10**6

_CACHE_BYTES = {"auto": 2.0, "bf16": 2.0, "f32": 4.0, "q8": 34 / 32}
"""Bytes a value of llama.cpp's keys and values: f16 unless said, q8 with a scale for 32."""
_REPACKED = (2, 12, 20)
"""Q4_0, Q4_K and IQ4_NL, by ggml's numbers (ggml.h)."""
_STEPS = (1024, 256, 64)
"""A context that would fit is rounded down to a multiple of one of these."""


@dataclass(frozen=True)
class Memory:
    """Bytes: `weights`, `cache` for keys and values of `tokens`, and the `rest`: runtime and intermediate values.

    `gpu` says that they are the GPU's.
    """

    weights: int
    cache: int = 0
    rest: int = 0
    tokens: int = 0
    gpu: bool = False

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.rest

    def __str__(self) -> str:
        named = {"weights": self.weights, "cache": self.cache, "rest": self.rest}
        parts = " + ".join(f"{name} {size(count)}" for name, count in named.items() if count)
        return f"{size(self.total)} ({parts})"


@dataclass(frozen=True)
class Plan:
    """What becomes of one model: `choice` and `memory`, or why there is none.

    `absent`: its weights are on the hub and not on this machine yet, so nothing can be said. `fault`: no engine can
    serve it, and why.
    """

    name: str
    spec: ModelSpec
    choice: Choice | None = None
    memory: Memory | None = None
    absent: bool = False
    fault: str | None = None
    cold: str = ""
    """Where its weights are while they are in cold storage; it is `absent` then, and `memory` what it took before."""
    shares: bool = False
    """Whether it makes room for others when it is idle."""

    @property
    def stays(self) -> bool:
        """Whether it is in memory all the time."""
        return self.spec.idle_unload is None and not self.shares


def plans(recipe: Recipe) -> list[Plan]:
    """One for each model, in the recipe's order. Reads headers only: under a second for each."""
    tiering = recipe.policies.tiering
    shared = tiering is not None and tiering.models is not None and tiering.models.memory is not None
    found = [_plan(name, spec, recipe.server.data) for name, spec in recipe.models.items()]
    return [replace(plan, shares=shared and not getattr(plan.spec, "pin", True)) for plan in found]


def takes(spec: ModelSpec, data: Path) -> Takes | None:
    """What a model takes, to be put on record with its weights; None where nothing can be said. `data` is the data
    directory. It asks engines' own packages, so it is not for the gateway."""
    memory = _plan("", spec, data).memory
    return None if memory is None else Takes(memory.weights, memory.cache, memory.rest, memory.tokens, memory.gpu)


def crowded(recipe: Recipe) -> list[str]:
    """What keeps the models of `recipe` out of this machine's memory, one sentence each; empty where nothing does.

    A model whose files are broken is none of it: it fails by itself and takes no other along.
    """
    return overfull(recipe, plans(recipe), room(), gpu_room())


def broken(recipe: Recipe, found: list[Plan]) -> list[str]:
    """The models that no engine can serve."""
    return [f"{recipe.path}: models.{plan.name}: {plan.fault}" for plan in found if plan.fault is not None]


def overfull(recipe: Recipe, found: list[Plan], free: int | None, gpu: int | None = None) -> list[str]:
    """What does not fit into `free` bytes, or `gpu` bytes: single models, or else all that are in memory together.

    Models with `idle_unload` make room for one another; each has to fit beside those that stay. None means that the
    system does not tell, and nothing is refused. A model that nothing can serve takes no memory.
    """
    known = {plan: plan.memory for plan in found if plan.memory is not None and plan.fault is None}
    on_gpu = {plan: memory for plan, memory in known.items() if memory.gpu}
    others = {plan: memory for plan, memory in known.items() if not memory.gpu}
    return [*_overfull(recipe, others, free, "memory"), *_overfull(recipe, on_gpu, gpu, "GPU memory")]


def _overfull(recipe: Recipe, known: dict[Plan, Memory], free: int | None, what: str) -> list[str]:
    if free is None:
        return []
    alone = [_refused(recipe, plan, memory, free, free, what) for plan, memory in known.items() if memory.total > free]
    if alone:
        return alone
    staying = {plan: memory for plan, memory in known.items() if plan.stays}
    together = sum(memory.total for memory in staying.values())
    if together > free:
        names = ", ".join(f"{plan.name} {size(memory.total)}" for plan, memory in staying.items())
        largest, memory = max(staying.items(), key=lambda entry: entry[1].cache)
        advice = _advice(largest, memory, free - (together - memory.total))
        return [
            f"{recipe.path}: models: together they need {size(together)} of {what} and {size(free)} are free "
            f"({names}); give `idle_unload` to those that are seldom asked, or for models.{largest.name}: {advice}"
        ]
    return [
        _refused(recipe, plan, memory, free - together, free, what)
        for plan, memory in known.items()
        if not plan.stays and memory.total > free - together
    ]


def _refused(recipe: Recipe, plan: Plan, memory: Memory, left: int, free: int, what: str) -> str:
    beside = "" if left == free else f", {size(free - left)} of them taken by the models that stay loaded"
    return (
        f"{recipe.path}: models.{plan.name}: needs {memory} of {what} and {size(free)} are free{beside}; "
        f"{_advice(plan, memory, left)}"
    )


def _advice(plan: Plan, memory: Memory, left: int) -> str:
    spec = plan.spec
    fits = int((left - memory.weights - memory.rest) / memory.cache * memory.tokens) if memory.cache else 0
    if not isinstance(spec, LocalModel) or fits < _STEPS[-1]:
        return f"take a smaller model, or one quantised further: without any cache {size(memory.total - memory.cache)}"
    needs = f"needs {size(memory.cache)} of cache"
    if spec.cache_tokens is not None and fits >= (spec.context or 0):
        return f"cache_tokens: {spec.cache_tokens} {needs}; {_rounded(fits)} fits"
    each = 1 if spec.cache_tokens is not None else _CONTEXTS
    return f"context: {memory.tokens // _CONTEXTS if each > 1 else spec.context} {needs}; {_rounded(fits // each)} fits"


def _rounded(tokens: int) -> int:
    return next((tokens // step * step for step in _STEPS if tokens >= step), tokens)


def size(count: int) -> str:
    """Bytes as people write them, in GB or MB of 1000."""
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{max(1, round(count / 1e6))} MB"


# ---- one model ------------------------------------------------------------------------------------------------------


def _plan(name: str, spec: ModelSpec, data: Path) -> Plan:
    if isinstance(spec, EchoModel):
        return Plan(name, spec, Choice("echo"), Memory(0, rest=_WORKER))
    if isinstance(spec, RemoteModel):
        return Plan(name, spec, Choice("remote", f"{spec.model or name} at {spec.url}"), Memory(0))
    try:
        if away := next((each.path for each in local_sources(spec) if is_away(each.path)), None):
            took = memory_of(spec, away)
            memory = None if took is None else Memory(took.weights, took.cache, took.rest, took.tokens, took.gpu)
            return Plan(name, spec, memory=memory, absent=True, cold=told_of(away))
        files = found(spec.source, data)
        if files is None:
            return Plan(name, spec, absent=True)
        if isinstance(spec, ReaderModel):
            return Plan(name, spec, Choice("reader"), _encoder(files, "embed"))
        drafter = found(spec.draft, data) if spec.draft is not None and not spec.draft.is_ngram else None
        if spec.engine in ON_GPU:
            return _on_gpu(name, spec, files, drafter, data)
        sight = None if spec.projector is None else found(spec.projector, data)
        if spec.projector is not None and sight is None:
            return Plan(name, spec, absent=True)
        choice = choose(spec, files, data=data)
        memory = estimate(choice.engine, spec, files, drafter, data)
        if sight is not None:
            projector.check(files, sight)
            memory = replace(memory, weights=memory.weights + sight.stat().st_size)
        return Plan(name, spec, choice, memory)
    except (ValueError, OSError) as error:
        return Plan(name, spec, fault=str(error))


def _on_gpu(name: str, spec: LocalModel, files: Path, drafter: Path | None, data: Path) -> Plan:
    """The estimate is for planning a machine as well: it is told where this one cannot compute the model."""
    memory = estimate(spec.engine, spec, files, drafter, data)
    try:
        return Plan(name, spec, choose(spec, files, data=data), memory)
    except ValueError as error:
        return Plan(name, spec, memory=memory, fault=str(error))


def estimate(
    engine: str, spec: LocalModel, files: Path, drafter: Path | None = None, data: Path | None = None
) -> Memory:
    """What a model takes with `engine`, with what is built for it in the data directory, where one is given.

    Raises ValueError or OSError naming the file where it cannot be read.
    """
    if spec.task != "chat":
        return _encoder(files, spec.task)
    trained = _trained(files) or LONGEST_CONTEXT
    context = min(spec.context or LONGEST_CONTEXT, trained)
    tokens = max(context, spec.cache_tokens or _CONTEXTS * context)
    if engine == "llamacpp":
        return _llamacpp(spec, files, context, tokens)
    if engine == "transformers":
        return _transformers(spec, files, context)
    if engine in ON_GPU:
        # Imported here because the package of engines imports this package.
        from server.models.vram import needed

        weights, cache, rest = needed(engine, spec, files, drafter, tokens)
        return Memory(weights, cache, rest, tokens, gpu=True)
    built = data is not None and openvino_kernel.found(native.home(data)) is not None
    return _paged(spec, files, drafter, context, tokens, built)


def _trained(files: Path) -> int:
    """The longest context of training, in tokens; 0 where the files do not say."""
    if files.is_dir():
        told = config(files)
        inner = told.get("text_config")
        words = inner if isinstance(inner, dict) else told
        return int(words.get("max_position_embeddings") or 0)
    return Header.read(files).count("%.context_length", 0)


def _paged(spec: LocalModel, files: Path, drafter: Path | None, context: int, tokens: int, built: bool) -> Memory:
    # Imported here: it brings the engine's package and the runtime, which only workers and `hearth check` need.
    from server.models.engines.paged.runtime import capabilities, precision_of
    from server.models.engines.paged.size import predicted

    precision = precision_of(spec.precision, capabilities())
    floats = spec.weights == "float"
    told = [
        predicted(
            each,
            keep_floats=floats,
            tokens=tokens,
            cache=spec.cache,
            precision=precision,
            context=context,
            kernel=built and precision != "f32",
        )
        for each in (files, drafter)
        if each is not None
    ]
    # One process holds both graphs, and the one that guesses ahead computes little at a time.
    rest = told[0].rest + sum(each.graph for each in told)
    return Memory(sum(each.weights for each in told), sum(each.cache for each in told), rest, tokens)


def _llamacpp(spec: LocalModel, file: Path, context: int, tokens: int) -> Memory:
    """The file, which is mapped, keys and values, and the buffers of one batch: logits and the widest layer, f32."""
    header = Header.read(file)
    layers, heads = header.count("%.block_count"), header.count("%.attention.head_count")
    hidden = header.count("%.embedding_length")
    kv_heads = header.count("%.attention.head_count_kv", heads)
    head = header.count("%.attention.key_length", hidden // heads)
    values = header.count("%.attention.value_length", hidden // heads)
    cache = int(layers * kv_heads * (head + values) * tokens * _CACHE_BYTES[spec.cache])
    vocabulary = header.length("tokenizer.ggml.tokens")
    # The mask of a batch over all tokens grows with them as their keys and values do.
    cache += 2 * _LLAMACPP_BATCH * tokens
    # Per row of a batch: the residual stream and its neighbours, and the feed-forward network.
    wide = 6 * hidden + 3 * header.count("%.feed_forward_length", 4 * hidden)
    batch = 4 * (_LLAMACPP_BATCH * wide + 2 * vocabulary * 8)
    # The list of tokens is held by Python and by llama.cpp, as text and in a table.
    words = 420 * vocabulary
    weights = sum(part.stat().st_size for part in parts(file)) + sum(map(_repacked, parts(file)))
    return Memory(weights, cache, _WORKER + _LLAMACPP + batch + words, tokens)


def _repacked(part: Path) -> int:
    """Matrices of 4 bits, which llama.cpp copies in another order for its kernels, beside the file that is mapped."""
    return sum(
        tensor.bytes
        for tensor in Header.read(part).tensors.values()
        if tensor.kind in _REPACKED and len(tensor.size) > 1 and tensor.name != "token_embd.weight"
    )


def _transformers(spec: LocalModel, folder: Path, context: int) -> Memory:
    told = config(folder)
    told = told.get("text_config") or told
    stored = sum(part.stat().st_size for part in parts(folder))
    kind = str(told.get("dtype") or told.get("torch_dtype") or "bfloat16")
    held = 4 if spec.precision == "f32" else 2
    weights = stored * held // (4 if kind == "float32" else 2)
    layers, heads = int(told.get("num_hidden_layers") or 0), int(told.get("num_attention_heads") or 1)
    head = int(told.get("head_dim") or int(told.get("hidden_size") or 0) // heads)
    # Each answer under way has a cache of its own, which grows with it.
    tokens = context * _CONTEXTS
    cache = 2 * layers * int(told.get("num_key_value_heads") or heads) * head * tokens * held
    return Memory(weights, cache, _WORKER + _TORCH, tokens)


def _encoder(folder: Path, task: Literal["embed", "rerank"]) -> Memory:
    # Imported here because the package of engines imports this package.
    from server.models.engines.encoders.config import Shape

    masks = Shape.read(folder, task).masks
    return Memory(sum(part.stat().st_size for part in parts(folder)), rest=_WORKER + _OPENVINO_ENCODER + masks)


# ---- the machine ----------------------------------------------------------------------------------------------------


def gpu_room() -> int | None:
    """Bytes that are free on all GPUs together; None where there is none, or the driver does not tell."""
    free = [gpu.free for gpu in cuda.gpus()]
    return None if not free or None in free else sum(each for each in free if each is not None)


def room(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping: the system's, or less where a control group allows less.

    None where the system does not tell. `root` is where /proc and /sys are.
    """
    told = [_free(root), *_groups(root)]
    known = [count for count in told if count is not None]
    if known:
        return min(known)
    names: dict[str, int] = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= names.keys():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _free(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, count = line.partition(":")
        if name == "MemAvailable":
            return int(count.split()[0]) * 1024
    return None


def _groups(root: Path) -> Iterator[int]:
    """What each limiting control group above this process has left (Linux' cgroup-v2.rst and cgroup-v1/memory.rst)."""
    for line in _lines(root / "proc/self/cgroup"):
        _, names, path = line.split(":", 2)
        if names == "":
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in names.split(","):
            top, limit, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = top / path.strip("/").removeprefix("../")
        # Within a container the path may be that of the host; the group it sees is then the top itself.
        for group in dict.fromkeys([folder, *folder.parents, top]):
            if group.is_relative_to(top) and (left := _left(group, limit, used)) is not None:
                yield left


def _left(group: Path, limit: str, used: str) -> int | None:
    at_most, taken = _number(group / limit), _number(group / used)
    if at_most is None or taken is None or at_most >= 2**60:
        return None
    # Pages of files that nobody has touched lately are given back when memory is asked for.
    spare = sum(int(line.split()[1]) for line in _lines(group / "memory.stat") if line.startswith("inactive_file "))
    return max(0, at_most - taken + spare)


def _number(file: Path) -> int | None:
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    # A pickled recipe comes in, and what does not fit goes out: for a process that must not import engines itself.
    sys.stdout.write("\n".join(crowded(pickle.load(sys.stdin.buffer))))
