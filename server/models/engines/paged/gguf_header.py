"""The header of a GGUF file: its metadata and where its tensors are; knows nothing of models.

The format is ggml's docs/gguf.md. gguf's own reader believes what a file says of its lengths: a broken one keeps it
busy for ever, and a whole vocabulary takes it seconds. Here every length is held against the file before it is used.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from server.models.engines.paged.weights import WeightsError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_DIMENSIONS = 4


@dataclass(frozen=True)
class Entry:
    """One tensor: its size in numpy's order, and its bytes in the file."""

    name: str
    size: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    bytes: int


@dataclass(frozen=True)
class Header:
    """`fields` are numbers, texts, flags and lists of them."""

    fields: dict[str, Any]
    tensors: dict[str, Entry]


def read(path: Path) -> Header:
    """Raises WeightsError where this is no GGUF file of version 2 or 3, or a cut or corrupt one."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from error
    try:
        return _Walk(memoryview(data), size).header()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


class _Walk:
    """Reads from the start of a file on; what reaches over its end is an error."""

    def __init__(self, data: memoryview, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 0
        self._reading = "its first bytes"

    def header(self) -> Header:
        if bytes(self._take(4)) != _MAGIC:
            raise WeightsError("not a GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise WeightsError(f"GGUF version {version} is not read; {' and '.join(map(str, _VERSIONS))} are")
        tensors, keys = self._number("<Q"), self._number("<Q")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            self._reading = "the metadata"
            key = self._text()
            self._reading = key
            if key in fields:
                raise WeightsError(f"{key} comes twice in the metadata")
            fields[key] = self._value(self._number("<I"))
        return Header(fields, self._tensors(tensors, fields))

    def _tensors(self, count: int, fields: dict[str, Any]) -> dict[str, Entry]:
        found: dict[str, tuple[tuple[int, ...], int, int]] = {}
        for _ in range(count):
            self._reading = "the list of tensors"
            name = self._text()
            self._reading = f"the tensor {name}"
            dimensions = self._number("<I")
            if dimensions > _DIMENSIONS:
                raise WeightsError(f"the tensor {name} has {dimensions} dimensions")
            if name in found:
                raise WeightsError(f"the tensor {name} comes twice")
            size = tuple(self._number("<Q") for _ in range(dimensions))[::-1]
            found[name] = (size, self._number("<I"), self._number("<Q"))
        step = fields.get("general.alignment", 32)
        if isinstance(step, bool) or not isinstance(step, int) or not 0 < step <= 1 << 20:
            raise WeightsError(f"general.alignment is {step!r}")
        start = -(-self._at // step) * step
        return {name: self._entry(name, size, kind, start + offset) for name, (size, kind, offset) in found.items()}

    def _entry(self, name: str, size: tuple[int, ...], number: int, start: int) -> Entry:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            raise WeightsError(f"the tensor {name} is of type {number}, which is not known here") from None
        each, octets = GGML_QUANT_SIZES[kind]
        count = 1
        for length in size:
            count *= length
        if size and size[-1] % each:
            raise WeightsError(f"the tensor {name} has rows of {size[-1]}, but {kind.name} comes in blocks of {each}")
        length = count // each * octets
        if start + length > self._size:
            raise WeightsError(
                f"cut off or corrupt: the tensor {name} ends {start + length - self._size} bytes after it"
            )
        return Entry(name, size, kind, start, length)

    def _take(self, count: int) -> memoryview:
        end = self._at + count
        if end > self._size:
            raise WeightsError(f"cut off or corrupt in {self._reading}")
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _text(self) -> str:
        raw = bytes(self._take(self._number("<Q")))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise WeightsError(f"corrupt in {self._reading}: a text is not UTF-8") from None

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._list()
        if kind not in _SCALARS:
            raise WeightsError(f"{self._reading} is of type {kind}, which is not known here")
        return self._number(_SCALARS[kind])

    def _list(self) -> list[Any]:
        kind, count = self._number("<I"), self._number("<Q")
        if kind == _STRING:
            return [self._text() for _ in range(count)]
        if kind not in _SCALARS:
            # Lists of lists are allowed by the format; nothing that is read here has any.
            raise WeightsError(f"{self._reading} is a list of type {kind}, which is not read here")
        form = _SCALARS[kind]
        raw = self._take(count * struct.calcsize(form))
        found: list[Any] = np.frombuffer(raw, np.dtype(form)).tolist()
        return found
