"""What files of weights say of themselves: a GGUF file's metadata, a folder's config.json. Reads no weights.

The GGUF format is described in ggml's docs/gguf.md. The gguf package reads a large vocabulary in ten seconds, this in a
third of one, since it passes over every list it is not asked for. Needs no heavy library.
"""

import json
import math
import mmap
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCALARS = dict(enumerate(["B", "b", "H", "h", "I", "i", "f", "?"])) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 12: (256, 144), 14: (256, 210), 20: (32, 18)}
_BLOCKS |= {30: (1, 2)}
"""Values and bytes of a block of F32, F16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K, IQ4_NL, BF16, by ggml's numbers (ggml.h)."""
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class Listed:
    """A list that was passed over."""

    length: int


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry: `shape` as numpy has it, rows first; `kind` is ggml's number of its type."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def least(self) -> int:
        """Bytes it takes at the very least; exact for the kinds in `_BLOCKS`."""
        values, held = _BLOCKS.get(self.kind, (8, 1))
        return math.prod(self.shape) // values * held


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors of one GGUF file. `%` in a key stands for the architecture."""

    file: Path
    fields: dict[str, Any]
    tensors: tuple[Tensor, ...]

    @classmethod
    def read(cls, file: Path, keep: Collection[str] = ()) -> "Header":
        """Lists become Listed unless their key is in `keep`, or they hold at most 256 numbers.

        Raises ValueError naming the file where it is no GGUF file or cut off, OSError where it cannot be read.
        """
        try:
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                reading = _Reading(mapped, keep)
                fields, tensors = reading.header()
        except (ValueError, struct.error, OverflowError) as error:
            raise ValueError(f"{file}: not a whole GGUF file: {error}") from error
        return cls(file, fields, tensors)

    @property
    def architecture(self) -> str:
        """Raises ValueError where the file names none."""
        named = self.fields.get("general.architecture")
        if not isinstance(named, str):
            raise ValueError(f"{self.file}: names no architecture, so it is no language model")
        return named

    def field(self, key: str, default: Any = None) -> Any:
        return self.fields.get(key.replace("%", self.architecture), default)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number; the largest of those given for each layer. Raises ValueError where it is missing."""
        value = self.field(key, default)
        numbers = value if isinstance(value, list) and value else [value]
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError(f"{self.file}: the metadata lacks {key.replace('%', self.architecture)}")
        return int(max(numbers))


class _Reading:
    """One pass over the bytes before the weights."""

    def __init__(self, data: mmap.mmap, keep: Collection[str]) -> None:
        self._data = data
        self._keep = keep
        self._at = 4

    def header(self) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
        """Raises ValueError or struct.error where the bytes are no GGUF of version 2 or 3."""
        if self._data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, count = self._take("I"), self._take("Q"), self._take("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version} is not 2 or 3")
        if max(count, tensors) > len(self._data):
            raise ValueError(f"it claims {count} fields and {tensors} tensors")
        fields = dict(self._field() for _ in range(count))
        found = tuple(self._tensor() for _ in range(tensors))
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        for tensor in found:
            if start + tensor.offset + tensor.least > len(self._data):
                raise ValueError(f"it ends before the end of the tensor {tensor.name}")
        return fields, found

    def _field(self) -> tuple[str, Any]:
        key = self._string().decode(errors="replace")
        return key, self._value(self._take("I"), key)

    def _tensor(self) -> Tensor:
        name = self._string().decode(errors="replace")
        sizes = [self._take("Q") for _ in range(self._take("I"))]
        return Tensor(name, tuple(reversed(sizes)), self._take("I"), self._take("Q"))

    def _take(self, code: str) -> Any:
        [value] = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def _string(self) -> bytes:
        length = self._take("Q")
        text = self._data[self._at : self._at + length]
        if len(text) < length:
            raise ValueError("it ends inside a text")
        self._at += length
        return text

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string().decode(errors="replace")
        return self._list(key) if kind == _ARRAY else self._take(_code(kind))

    def _list(self, key: str) -> "list[Any] | Listed":
        kind, length = self._take("I"), self._take("Q")
        if length > len(self._data):
            raise ValueError(f"{key} claims {length} entries")
        if kind == _STRING:
            texts = self._strings(length)
            if key in self._keep:
                return [text.decode(errors="replace") for text in texts]
            for _ in texts:
                pass
            return Listed(length)
        code = _code(kind)
        if key in self._keep or length <= 256:
            return [self._take(code) for _ in range(length)]
        self._at += length * struct.calcsize(f"<{code}")
        if self._at > len(self._data):
            raise ValueError(f"it ends inside {key}")
        return Listed(length)

    def _strings(self, length: int) -> Iterator[bytes]:
        return (self._string() for _ in range(length))


def _code(kind: int) -> str:
    if kind not in _SCALARS:
        raise ValueError(f"it holds a value of an unknown type, {kind}")
    return _SCALARS[kind]


def config(folder: Path) -> dict[str, Any]:
    """config.json of a folder. Raises ValueError naming it where it cannot be read."""
    file = folder / "config.json"
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: should hold a JSON object")
    return found


def parts(files: Path) -> list[Path]:
    """Every file with weights of a .gguf file, which may be the first of several, or of a folder."""
    if files.is_dir():
        return sorted(files.glob("*.safetensors"))
    split = _SHARD.fullmatch(files.name)
    if split is None:
        return [files]
    return sorted(files.parent.glob(f"{split['stem']}-?????-of-{split['count']}.gguf"))
