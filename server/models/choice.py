"""Which engine serves which weights: a pure decision over facts of the files and the machine. Loads no weights.

Every engine either can serve the weights with the keys the recipe gives, or has an objection that a person can act on.
`engine: auto` takes the first without one, in the order of preference for the format.
"""

import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from config.contradiction import CACHES, HONOURED
from config.model import LocalModel
from server.models import cuda, families
from server.models.cuda import Gpu
from server.models.families import FAMILIES, ROPE, TOKENIZERS
from server.models.header import Header, config

_PACKAGES = {
    "openvino": "openvino",
    "llamacpp": "xllamacpp",
    "transformers": "transformers",
    "exllamav2": "exllamav2",
    "exllamav3": "exllamav3",
}
_INSTALL = {
    "openvino": "openvino",
    "llamacpp": "xllamacpp",
    "transformers": "'hearth[transformers]'",
    "exllamav2": "'hearth[cuda]'",
    "exllamav3": "'hearth[cuda]'",
}
ON_GPU = ("exllamav2", "exllamav3")
"""The engines that compute on an NVIDIA GPU alone."""
_HOW = {
    "openvino": "computed on the processor by Hearth's own engine",
    "llamacpp": "computed by llama.cpp",
    "transformers": "computed by the library transformers",
    "exllamav2": "computed by ExLlamaV2 on the GPU",
    "exllamav3": "computed by ExLlamaV3 on the GPU",
}


@dataclass(frozen=True)
class Choice:
    """An engine by the recipe's word. `reason` is None where the recipe named it."""

    engine: str
    reason: str | None = None

    def __str__(self) -> str:
        return self.engine if self.reason is None else f"{self.engine}: {self.reason}"


@dataclass(frozen=True)
class Facts:
    """What files say that decides. `rope` is how rotary frequencies are stretched, `quantised` by what a folder was.

    `tokenizer` and `cut` are a GGUF file's own names; None in a folder, which brings tokenizer.json. `odd` is what else
    keeps it from the paged engine, though of a family that this computes: an objection, None where there is none.
    `gpu` are the objections of the engines of a GPU, by their names, None where they read it.
    """

    file: Path
    format: str
    architecture: str
    rope: str = "none"
    tokenizer: str | None = None
    cut: str | None = None
    experts: int = 0
    quantised: str | None = None
    odd: str | None = None
    gpu: tuple[tuple[str, str | None], ...] = ()

    @classmethod
    def read(cls, files: Path) -> "Facts":
        """Of a .gguf file or a folder. Raises ValueError or OSError naming the file where it cannot be read."""
        return cls._of_folder(files) if files.is_dir() else cls._of_gguf(Header.read(files))

    @classmethod
    def _of_gguf(cls, header: Header) -> "Facts":
        return cls(
            header.file,
            "gguf",
            header.architecture,
            rope=str(header.field("%.rope.scaling.type", "none")),
            tokenizer=str(header.field("tokenizer.ggml.model", "none")),
            cut=str(header.field("tokenizer.ggml.pre", "default")),
            experts=header.count("%.expert_count", 0),
            odd=families.unlike_header(header),
        )

    @classmethod
    def _of_folder(cls, folder: Path) -> "Facts":
        told = config(folder)
        match told.get("architectures"):
            case [str(architecture), *_]:
                pass
            case _:
                raise ValueError(f"{folder / 'config.json'}: names no architecture")
        return cls(
            folder / "config.json",
            "folder",
            architecture,
            rope=_rope(told),
            quantised=_quantised(told.get("quantization_config")),
            odd=_odd_folder(folder, told),
            gpu=_on_gpu(folder),
        )


@dataclass(frozen=True)
class Machine:
    """What decides of this machine: `platform` as sys.platform has it, and the engines whose package is installed.

    `unusable` says of engines of a GPU what is missing on this machine, first of all the GPU.
    """

    platform: str
    installed: frozenset[str]
    gpus: tuple[Gpu, ...] = ()
    unusable: tuple[tuple[str, str], ...] = ()

    @classmethod
    def this(cls, data: Path) -> "Machine":
        """`data` is the data directory, where engines built on this machine are."""
        # Imported here because the package of engines imports this module.
        from server.models.engines.exllama.extension import state

        installed = frozenset(engine for engine, package in _PACKAGES.items() if find_spec(package))
        gpus = cuda.gpus()
        reasons = ((engine, state(engine, data, gpus).reason) for engine in ON_GPU)
        return cls(sys.platform, installed, gpus, tuple((engine, why) for engine, why in reasons if why is not None))


def choose(spec: LocalModel, files: Path, machine: Machine | None = None, data: Path = Path("data")) -> Choice:
    """The engine for the weights at `files`, a .gguf file or a folder; `machine` None is this one, with `data`.

    Raises ValueError or OSError, naming the file and the reason, where none can serve them as the recipe says, or the
    one it names cannot.
    """
    machine = machine or Machine.this(data)
    if spec.task != "chat":
        # Imported here because the package of engines imports this module.
        from server.models.engines.encoders.config import Shape

        shape = Shape.read(files, spec.task)
        what = f"a {shape.family} encoder, {_HOW['openvino']}"
        return Choice("openvino", None if spec.engine == "openvino" else what)
    return decide(spec, Facts.read(files), machine)


def decide(spec: LocalModel, facts: Facts, machine: Machine) -> Choice:
    """The decision of `choose` for a model that generates, over what is known; reads nothing."""
    if spec.engine != "auto":
        if objection := _objection(spec.engine, spec, facts, machine):
            raise ValueError(f"{facts.file}: the engine {spec.engine} cannot serve it: {objection}")
        return Choice(spec.engine)
    objections: dict[str, str] = {}
    for engine in _preferred(facts, machine):
        objection = _objection(engine, spec, facts, machine)
        if objection is None:
            against = "".join(f"; not {other}, {why}" for other, why in objections.items())
            return Choice(engine, f"a {facts.architecture} model, {_HOW[engine]}{against}")
        objections[engine] = objection
    reasons = "; ".join(f"{engine}: {why}" for engine, why in objections.items())
    raise ValueError(f"{facts.file}: no engine can serve this {facts.architecture} model ({reasons})")


def _preferred(facts: Facts, machine: Machine) -> tuple[str, ...]:
    if facts.format == "folder":
        # What was quantised for one of them is its own; of the rest, V2 reads more kinds and V3 more architectures.
        first = ("exllamav3", "exllamav2") if facts.quantised == "exl3" else ("exllamav2", "exllamav3")
        if machine.gpus:
            return (*first, "openvino", "transformers")
        return ("openvino", "transformers", *first) if facts.quantised else ("openvino", "transformers")
    # llama.cpp computes on a Mac's graphics processor, OpenVINO on its processor alone.
    return ("llamacpp", "openvino") if machine.platform == "darwin" else ("openvino", "llamacpp")


def _objection(engine: str, spec: LocalModel, facts: Facts, machine: Machine) -> str | None:
    """Why `engine` cannot serve these weights as the recipe says; None where it can."""
    for key, honouring in HONOURED.items():
        if engine not in honouring and getattr(spec, key) != LocalModel.model_fields[key].default:
            return f"it does not take `{key}`, which the recipe gives"
    if engine in CACHES and spec.cache not in CACHES[engine]:
        return f"it keeps no {spec.cache} cache, which the recipe gives"
    if (unlike := _OBJECTIONS[engine](facts)) is not None:
        return unlike
    if engine not in machine.installed:
        return f"it is not installed; run: pip install {_INSTALL[engine]}"
    return dict(machine.unusable).get(engine)


def _openvino(facts: Facts) -> str | None:
    served = FAMILIES[facts.format]
    if facts.architecture not in served:
        return f"it computes {', '.join(served)} only"
    if facts.experts:
        return f"it computes no mixture of experts, and there are {facts.experts}"
    if facts.rope not in ROPE[facts.format]:
        return f"it does not compute rope scaling of type {facts.rope}"
    if facts.quantised is not None:
        return f"it does not read weights quantised by {facts.quantised}"
    if facts.tokenizer is not None and facts.tokenizer not in TOKENIZERS:
        return f"it does not read a tokenizer of kind {facts.tokenizer}"
    if facts.tokenizer == "gpt2" and facts.cut not in _cuts():
        return f"it does not know the pre-tokenizer {facts.cut}"
    return facts.odd


def _cuts() -> Collection[str]:
    """What the paged engine knows of tokenizer.ggml.pre: how text is cut before merging."""
    # Imported here because the package of engines imports this module, and it brings the library of tokenizers.
    from server.models.engines.sampling.cuts import CUTS

    return CUTS


def _llamacpp(facts: Facts) -> str | None:
    return "it reads .gguf files only" if facts.format != "gguf" else None


def _transformers(facts: Facts) -> str | None:
    return "it reads folders only" if facts.format != "folder" else None


def _exllama(engine: str, facts: Facts) -> str | None:
    return "it reads folders only" if facts.format != "folder" else dict(facts.gpu).get(engine)


def _on_gpu(folder: Path) -> tuple[tuple[str, str | None], ...]:
    # Imported here because the package of engines imports this module.
    from server.models.engines.exllama.preflight import ARCHITECTURES, objection

    return tuple((engine, objection(engine, folder)) for engine in ARCHITECTURES)


_OBJECTIONS: dict[str, Callable[[Facts], str | None]] = {
    "openvino": _openvino,
    "llamacpp": _llamacpp,
    "transformers": _transformers,
    "exllamav2": lambda facts: _exllama("exllamav2", facts),
    "exllamav3": lambda facts: _exllama("exllamav3", facts),
}


def _rope(told: dict[str, Any]) -> str:
    """The type of scaling a config.json declares; transformers 5 moved it into `rope_parameters`."""
    for key in ("rope_parameters", "rope_scaling"):
        scaling = told.get(key)
        kind = scaling.get("rope_type") or scaling.get("type") if isinstance(scaling, dict) else None
        if kind not in (None, "default"):
            return str(kind)
    return "none"


def _odd_folder(folder: Path, told: dict[str, Any]) -> str | None:
    if not (folder / "tokenizer.json").is_file():
        return "it reads tokenizer.json, and there is none"
    return families.unlike_config(told)


def _quantised(told: object) -> str | None:
    return str(told.get("quant_method", "another library")) if isinstance(told, dict) else None
