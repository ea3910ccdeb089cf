"""Builds the models of tests and benches, each once: what `server.models.made` can write, in every format."""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from server.models.made import TEMPLATE, encoder_folder
from server.models.made.automaton import TEXT, Automaton
from server.models.made.build import once
from server.models.made.encoder_folder import write_encoder
from server.models.made.gguf_file import QUANTS as GGUF_QUANTS
from server.models.made.gguf_file import write_gguf
from server.models.made.shapes import FAMILIES, SHAPES, random_shape
from server.models.made.vocabulary import trained
from server.models.made.weights import Random
from tests.making.folder import QUANTS as FOLDER_QUANTS
from tests.making.folder import write_folder
from tests.making.tiny import Tiny

NAMES = ("automaton", "random", "tiny")
FORMATS = ("gguf", "safetensors")
_HERE = Path(__file__).parent
_SOURCES = (_HERE, TEMPLATE.parent)
_PRE = {"llama": "llama-bpe", "qwen2": "qwen2", "qwen3": "qwen2", "mistral": "gpt-2"}
_TRAINED = {"small": 2000, "30m": 12_000, "0.6b": 12_000}
"""Most tokens to learn, special ones not counted; the rest of the vocabulary stays unused, as in published models."""


@dataclass(frozen=True)
class Request:
    """Which model to build.

    `shape` and `rope_scaling` concern random ones, `seed` these and the tiny one, `text` the automaton.
    """

    name: str
    family: str = "llama"
    format: str = "gguf"
    quant: str = "f32"
    shape: str = "small"
    seed: int = 0
    rope_scaling: bool = False
    shards: int = 1
    text: str = TEXT

    def __post_init__(self) -> None:
        """Raises ValueError where no such model can be built."""
        _among("name", self.name, NAMES)
        _among("family", self.family, FAMILIES)
        _among("format", self.format, FORMATS)
        _among("shape", self.shape, SHAPES)
        _among(f"quant of {self.format}", self.quant, GGUF_QUANTS if self.format == "gguf" else FOLDER_QUANTS)
        if self.shards < 1 or (self.shards > 1 and self.format == "gguf"):
            raise ValueError("shards are for safetensors, and at least 1")
        if self.name in ("automaton", "tiny"):
            if (self.family, self.shape, self.rope_scaling) != ("llama", "small", False):
                raise ValueError(f"the model {self.name} is a small llama and nothing else")
            if self.name == "automaton" and self.quant == "q4_0":
                raise ValueError("q4_0 is too coarse for the automaton's preferences")
        elif self.shape == "0.6b" and self.quant not in ("q8_0", "q4_0"):
            raise ValueError("shape 0.6b is written as q8_0 or q4_0 GGUF only: floats would take minutes")
        else:
            random_shape(self.shape, self.family, rope_scaling=self.rope_scaling)

    @property
    def title(self) -> str:
        parts = [self.name, self.family, self.shape] if self.name == "random" else [self.name]
        return "-".join([*parts, self.quant])


def build(request: Request, folder: Path) -> Path:
    """The .gguf file within `folder`, or `folder` itself for safetensors; written only if it is not there yet.

    A folder this did not write is left alone: FileExistsError.
    """
    once(folder, _key(request), lambda fresh: _write(request, fresh))
    return folder / f"{request.title}.gguf" if request.format == "gguf" else folder


def made(
    name: str,
    *,
    family: str = "llama",
    format: str = "gguf",  # noqa: A002 - the word the command line uses
    quant: str = "f32",
    shape: str = "small",
    seed: int = 0,
    rope_scaling: bool = False,
    shards: int = 1,
    text: str = TEXT,
) -> Path:
    """A model for tests, from the cache or new: the .gguf file, or the folder of safetensors.

    The cache is $HEARTH_TEST_MODELS, or .models-cache in the repository. Raises ValueError for what cannot be built.
    """
    request = Request(name, family, format, quant, shape, seed, rope_scaling, shards, text)
    digest = hashlib.sha256(repr(request).encode()).hexdigest()[:8]
    return build(request, _cache() / f"{request.title}-{format}-{digest}")


def made_encoder(family: str, *, window: int = 64, labels: int = 0) -> Path:
    """An encoder's folder, from the same cache; as `write_encoder` of `server.models.made` writes it."""
    folder = _cache() / f"encoder-{family}-{window}-{labels}"
    writer = Path(encoder_folder.__file__).read_bytes()
    once(
        folder,
        hashlib.sha256(writer).hexdigest(),
        lambda fresh: write_encoder(fresh / "model", family, window=window, labels=labels),
    )
    return folder / "model"


def _cache() -> Path:
    return Path(os.environ.get("HEARTH_TEST_MODELS") or _HERE.parents[1] / ".models-cache")


def _write(request: Request, folder: Path) -> None:
    template = TEMPLATE.read_text(encoding="utf-8")
    weights: Automaton | Random | Tiny
    if request.name == "automaton":
        weights = Automaton(request.text)
        shape, vocabulary = weights.shape, weights.vocabulary
    elif request.name == "tiny":
        weights = Tiny(request.seed, _cache(), lambda line: print(line, file=sys.stderr, flush=True))
        shape, vocabulary = weights.shape, weights.vocabulary
    else:
        shape = random_shape(request.shape, request.family, rope_scaling=request.rope_scaling)
        vocabulary = trained(_TRAINED[request.shape], _PRE[request.family])
        large = request.shape == "0.6b"
        weights = Random(shape, request.seed, vocabulary.special, len(vocabulary.tokens), quantised=large)
    if request.format == "gguf":
        file = folder / f"{request.title}.gguf"
        write_gguf(file, request.title, request.quant, shape, vocabulary, weights, template)
    else:
        write_folder(folder, request.quant, request.shards, shape, vocabulary, weights, template)


def _key(request: Request) -> str:
    """A digest of the request and of every file that decides what is written."""
    digest = hashlib.sha256(repr(request).encode())
    sources = [
        path
        for folder in _SOURCES
        for path in folder.iterdir()
        if path.suffix in (".py", ".jinja", ".txt")
        and "test" not in path.name
        and (request.name == "tiny" or not path.name.startswith("tiny"))
    ]
    for path in sorted(sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _among(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r} is not one of {', '.join(known)}")
