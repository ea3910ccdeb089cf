"""Builds a model once: a finished folder is used again until the request or the code that wrote it changes."""

import hashlib
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.making.automaton import TEXT, Automaton
from tests.making.folder import QUANTS as FOLDER_QUANTS
from tests.making.folder import write_folder
from tests.making.gguf_file import QUANTS as GGUF_QUANTS
from tests.making.gguf_file import write_gguf
from tests.making.shapes import FAMILIES, SHAPES, random_shape
from tests.making.tiny import Tiny
from tests.making.vocabulary import HANDBOOK, trained
from tests.making.weights import Random

NAMES = ("automaton", "random", "tiny")
FORMATS = ("gguf", "safetensors")
KEY = "made.json"
_HERE = Path(__file__).parent
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
    made = folder / f"{request.title}.gguf" if request.format == "gguf" else folder
    key = _key(request)
    if _key_of(folder) == key:
        return made
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as room:
        fresh = Path(room) / "fresh"
        fresh.mkdir()
        _write(request, fresh)
        (fresh / KEY).write_text(json.dumps({"key": key, **asdict(request)}, indent=2) + "\n", encoding="utf-8")
        _replace(folder, fresh, Path(room) / "old", key)
    return made


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


def _cache() -> Path:
    return Path(os.environ.get("HEARTH_TEST_MODELS") or _HERE.parents[1] / ".models-cache")


def _write(request: Request, folder: Path) -> None:
    template = (_HERE / "chatml.jinja").read_text(encoding="utf-8")
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
    sources = [path for path in _HERE.iterdir() if path.suffix in (".py", ".jinja") and "test" not in path.name]
    if request.name != "tiny":
        sources = [path for path in sources if not path.name.startswith("tiny")]
    if request.name == "random":
        sources += HANDBOOK.glob("*.md")
    for path in sorted(sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _key_of(folder: Path) -> str | None:
    try:
        key = json.loads((folder / KEY).read_text(encoding="utf-8"))["key"]
    except FileNotFoundError:
        return None
    return str(key)


def _replace(folder: Path, fresh: Path, old: Path, key: str) -> None:
    """Put `fresh` in the place of `folder`, both of one file system, so that a reader sees one or the other whole."""
    if folder.exists() and any(folder.iterdir()):
        if _key_of(folder) is None:
            raise FileExistsError(f"{folder} holds other files; give an empty folder, or one a model was made in")
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if _key_of(folder) != key:
            raise
        # Another process finished the same model first: it is as good.


def _among(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r} is not one of {', '.join(known)}")
