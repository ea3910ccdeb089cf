"""The model that is quantised: its tensors row by row as floats, under the names GGUF files have, and its metadata.

A folder is read by our own engine's reader, so it is one that this computes. A GGUF file may be of any architecture:
its metadata is taken over as it is.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, RopeScalingType
from numpy.typing import NDArray

from server.models.engines.paged.folder import Folder
from server.models.engines.paged.gguf_file import GgufFile, gguf_name
from server.models.engines.paged.weights import Shape, frequencies, tensors
from server.models.engines.sampling import vocabulary
from server.models.header import Entry, Header, WeightsError, config, parts
from server.models.made.gguf_file import interleave
from server.models.quantization.fault import QuantizeError
from server.models.quantization.kinds import FLOATS, bits
from server.models.quantization.tables import add_tokenizer

_PIECE = 8 * 1024 * 1024
"""Weights that are in memory as floats at a time."""
_HEADS = ("output.weight", "token_embd.weight")
_PLAIN = ("ffn_gate_inp", "position_embd", "token_types", "ssm_conv1d", "time_mix", "altup", "laurel", "per_layer")
"""Parts of names of matrices that are small and decide much: llama.cpp's quantiser leaves them as they are too."""
_OWN = ("general.file_type", "general.quantization_version", "general.alignment")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One tensor: numpy's order of sizes. `kept` is how it stays where it is not to be quantised."""

    name: str
    size: tuple[int, ...]
    kept: GGMLQuantizationType | None
    head: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.size)


class Original(ABC):
    """`parts` in the order the file holds them. All methods raise WeightsError for a broken file."""

    path: Path
    architecture: str
    parts: Sequence[Part]

    @property
    def count(self) -> int:
        """How many weights there are."""
        return sum(part.count for part in self.parts)

    @property
    def half_bytes(self) -> int:
        """What all weights take as 16-bit floats."""
        return 2 * self.count

    def identity(self) -> dict[str, list[int]]:
        """The files by name, with size and time of the last change in nanoseconds."""
        files = [*parts(self.path), *(self.path.glob("*.json") if self.path.is_dir() else [])]
        return {file.name: [(found := file.stat()).st_size, found.st_mtime_ns] for file in sorted(files)}

    @abstractmethod
    def add_metadata(self, writer: GGUFWriter) -> None:
        """All but the type of the file. Raises QuantizeError for what a GGUF file has no words for."""

    @abstractmethod
    def shape(self) -> Shape:
        """Of a model that our own engine computes. Raises WeightsError for others, saying why."""

    @abstractmethod
    def vocabulary(self, size: int) -> vocabulary.Vocabulary:
        """Its tokenizer, for `size` rows of embedding. Raises WeightsError for a kind that is not known here."""

    def whole(self, part: Part) -> Floats:
        """All of a tensor, in its size."""
        return np.concatenate(list(self.pieces(part))).reshape(part.size)

    @abstractmethod
    def pieces(self, part: Part) -> Iterator[Floats]:
        """The rows of the tensor, [n, columns] and in order, a limited number of weights at a time."""


def read(path: Path) -> Original:
    """Of a .gguf file or a folder. Raises WeightsError or QuantizeError where it cannot be quantised."""
    return GgufOriginal(path) if path.suffix == ".gguf" else FolderOriginal(path)


def _step(columns: int) -> int:
    return max(1, _PIECE // max(1, columns))


def _is_head(name: str, names: set[str]) -> bool:
    """The head, or the embedding where it is the head too."""
    return name == _HEADS[0] or (name == _HEADS[1] and _HEADS[0] not in names)


# ---- folders --------------------------------------------------------------------------------------------------------


class FolderOriginal(Original):
    """A Hugging Face folder of one of the families that our own engine computes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = Folder(path, keep_floats=True)
        shape = self._folder.shape
        # To GGUF a Mistral is a llama.
        self.architecture = "llama" if shape.family == "mistral" else shape.family
        found = [each for each in tensors(shape) if self._folder.has(each.name, each.layer)]
        self._tensors = {gguf_name(each.name, each.layer): each for each in found}
        self._factors = self._rope_factors()
        self.parts = [self._part(name, each.size) for name, each in self._tensors.items()]
        if self._factors is not None:
            self.parts.append(Part("rope_freqs.weight", self._factors.shape, GGMLQuantizationType.F32))

    def _part(self, name: str, size: tuple[int, ...]) -> Part:
        kept = GGMLQuantizationType.F32 if len(size) == 1 else None
        return Part(name, size, kept, _is_head(name, set(self._tensors)))

    def _rope(self) -> dict[str, Any]:
        """Base and scaling of the rotary embedding, from where transformers 4 or 5 keeps them."""
        told = config(self.path)
        rope = told.get("rope_parameters") or told.get("rope_scaling") or {}
        theta = rope.get("rope_theta") or told.get("rope_theta") or 10000.0
        kind = rope.get("rope_type") or rope.get("type") or "default"
        return {**rope, "theta": float(theta), "kind": kind}

    def _rope_factors(self) -> Floats | None:
        """What llama3's scaling divides each frequency by; other kinds need no tensor."""
        shape, rope = self._folder.shape, self._rope()
        if rope["kind"] != "llama3":
            return None
        if self.architecture != "llama":
            raise QuantizeError(f"{self.path}: llama3 rope scaling of a {shape.family} has no place in a GGUF file")
        plain = frequencies(shape.head_dim, rope["theta"])
        return (plain / shape.frequencies).astype(np.float32)

    def add_metadata(self, writer: GGUFWriter) -> None:
        shape, rope = self._folder.shape, self._rope()
        writer.add_name(self.path.name)
        if shape.context:
            writer.add_context_length(shape.context)
        writer.add_embedding_length(shape.hidden)
        writer.add_block_count(shape.layers)
        writer.add_feed_forward_length(shape.ffn)
        writer.add_head_count(shape.heads)
        writer.add_head_count_kv(shape.kv_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_layer_norm_rms_eps(shape.eps)
        writer.add_rope_freq_base(rope["theta"])
        writer.add_rope_dimension_count(shape.head_dim)
        writer.add_vocab_size(shape.vocabulary)
        if rope["kind"] == "linear":
            writer.add_rope_scaling_type(RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(float(rope["factor"]))
        if shape.window:
            writer.add_sliding_window(shape.window)
        add_tokenizer(writer, self.path, vocabulary.from_folder(self.path, shape.vocabulary), shape.vocabulary)

    def shape(self) -> Shape:
        return self._folder.shape

    def vocabulary(self, size: int) -> vocabulary.Vocabulary:
        return vocabulary.from_folder(self.path, size)

    def check_tokenizer(self, file: Path) -> None:
        """See that the file's tokenizer reads and writes as the folder's. Raises QuantizeError."""
        size = self._folder.shape.vocabulary
        own, made = vocabulary.from_folder(self.path, size), vocabulary.from_gguf(Header.read(file), size)
        try:
            own.check_same(made, file)
        except WeightsError:
            raise QuantizeError(
                f"{self.path / 'tokenizer.json'}: this tokenizer would read text otherwise as a GGUF file"
            ) from None

    def pieces(self, part: Part) -> Iterator[Floats]:
        if part.name not in self._tensors:
            assert self._factors is not None
            yield self._factors.reshape(1, -1)
            return
        tensor = self._tensors[part.name]
        shape = self._folder.shape
        stem = tensor.name.partition(".")[0]
        rows = part.size[0]
        if self.architecture == "llama" and stem in ("q", "k"):
            # Heads are laid out otherwise, so the tensor is read as a whole.
            whole = self._folder.rows(tensor.name, tensor.layer, 0, rows)
            yield interleave(whole, shape.heads if stem == "q" else shape.kv_heads).reshape(_flat(part))
            return
        step = rows if len(part.size) == 1 else _step(part.size[-1])
        for start in range(0, rows, step):
            piece = self._folder.rows(tensor.name, tensor.layer, start, min(step, rows - start))
            yield piece.reshape(1, -1) if len(part.size) == 1 else piece


def _flat(part: Part) -> tuple[int, int]:
    return (-1, part.size[-1]) if len(part.size) > 1 else (1, part.size[0])


# ---- GGUF files -----------------------------------------------------------------------------------------------------


class GgufOriginal(Original):
    """A GGUF file of any architecture, of floats or of more bits than it is quantised to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = Header.read(path)
        self.architecture = self._header.architecture
        if self._header.count("split.count", 1) > 1:
            raise QuantizeError(f"{path}: is one of several files; join them with llama-gguf-split --merge")
        names = set(self._header.tensors)
        self.parts = [self._part(entry, names) for entry in self._header.tensors.values()]

    def _part(self, entry: Entry, names: set[str]) -> Part:
        kind = GGMLQuantizationType(entry.kind)
        matrix = len(entry.size) > 1 and entry.name.endswith("weight")
        plain = "_norm" in entry.name or any(each in entry.name for each in _PLAIN)
        return Part(entry.name, entry.size, None if matrix and not plain else kind, _is_head(entry.name, names))

    def shape(self) -> Shape:
        return GgufFile(self.path, keep_floats=True).shape

    def vocabulary(self, size: int) -> vocabulary.Vocabulary:
        return vocabulary.from_gguf(self._header, size)

    @property
    def bits(self) -> float:
        """What a weight takes now, over those that are to be quantised."""
        wide = [part for part in self.parts if part.kept is None]
        kinds = [(part.count, bits(GGMLQuantizationType(self._header.tensors[part.name].kind))) for part in wide]
        return sum(count * each for count, each in kinds) / max(1, sum(count for count, _ in kinds))

    def add_metadata(self, writer: GGUFWriter) -> None:
        # The library's own way, as in its gguf_new_metadata. The header was held against the file before.
        for name, field in GGUFReader(self.path).fields.items():
            if name.startswith("GGUF.") or name in (*_OWN, "general.architecture"):
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)

    def pieces(self, part: Part) -> Iterator[Floats]:
        entry = self._header.tensors[part.name]
        kind = GGMLQuantizationType(entry.kind)
        columns = entry.size[-1]
        rows = part.count // columns
        octets = entry.bytes // rows
        for start in range(0, rows, _step(columns)):
            count = min(_step(columns), rows - start)
            raw = np.fromfile(self.path, np.uint8, count * octets, offset=entry.start + start * octets)
            if len(raw) != count * octets:
                raise WeightsError(f"{self.path}: was cut off while it was read, in the tensor {part.name}")
            try:
                values = gguf.dequantize(raw.reshape(count, octets), kind).reshape(count, columns)
            except NotImplementedError:
                raise QuantizeError(
                    f"{self.path}: the tensor {part.name} is of type {kind.name}, not read here"
                ) from None
            if kind in FLOATS and not np.isfinite(values).all():
                raise WeightsError(f"{self.path}: corrupt: the tensor {part.name} holds values that are not numbers")
            yield values.astype(np.float32, copy=False)

    def raw(self, part: Part) -> bytes:
        """The bytes of a tensor that stays as it is."""
        entry = self._header.tensors[part.name]
        with self.path.open("rb") as file:
            file.seek(entry.start)
            return file.read(entry.bytes)
