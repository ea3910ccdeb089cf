"""What files of weights say of themselves: a GGUF file's header, a folder's JSON. Reads no weights, knows no engine.

The GGUF format is ggml's docs/gguf.md. gguf's own reader believes what a file says of its lengths: a broken one keeps
it busy for ever, and a large vocabulary takes it ten seconds. Here every length is held against the file before it is
used, and a list is passed over until it is asked for. Needs no heavy library.
"""

import json
import math
import mmap
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_TEXT, _LIST = 8, 9
_LENGTH = struct.Struct("<Q")
_DIMENSIONS = 4
INDEX = "model.safetensors.index.json"
"""Tells which file of a folder holds which tensor, where there are several."""
BLOCKS = {
    **{0: (1, 4), 1: (1, 2), 30: (1, 2), 28: (1, 8)},  # F32, F16, BF16, F64
    **{24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8)},  # I8, I16, I32, I64
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)},  # Q4_0 to Q8_1
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)},  # Q2_K to Q8_K
    **{16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18)},  # IQ2_XXS to IQ4_NL
    **{21: (256, 110), 22: (256, 82), 23: (256, 136), 29: (256, 56)},  # IQ3_S, IQ2_S, IQ4_XS, IQ1_M
    **{34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18)},  # TQ1_0, TQ2_0, MXFP4, NVFP4, Q1_0
}
"""Values and bytes of a block of each type of tensor, by ggml's numbers (ggml.h)."""
_UNKNOWN = (16, 1)
"""Of a type that is newer than this table: no fewer bits a value than any has."""
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


class WeightsError(ValueError):
    """A file cannot be used; the text names it and says why."""


@dataclass(frozen=True)
class Entry:
    """One tensor: its size in numpy's order, ggml's number of its type, and its bytes in the file.

    Of a type that is not in BLOCKS, `bytes` is the least it can have.
    """

    name: str
    size: tuple[int, ...]
    kind: int
    start: int
    bytes: int


@dataclass(frozen=True)
class _Passed:
    """A list that was passed over: the type of its entries, how many there are, and where they begin."""

    kind: int
    length: int
    start: int


@dataclass(frozen=True)
class Header:
    """The metadata and the tensors of one GGUF file. `%` in a key stands for the architecture."""

    file: Path
    tensors: dict[str, Entry]
    _fields: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> "Header":
        """Raises WeightsError, naming file and field, where this is no GGUF file, a cut one or a corrupt one."""
        with _walking(file) as walk:
            fields, tensors = walk.header()
        return cls(file, tensors, fields)

    @property
    def architecture(self) -> str:
        """Raises WeightsError where the file names none."""
        named = self._fields.get("general.architecture")
        if not isinstance(named, str):
            raise WeightsError(f"{self.file}: names no architecture, so it is no language model")
        return named

    def under(self, start: str) -> dict[str, Any]:
        """The fields that are no lists and whose names begin with `start`, by the rest of their names."""
        return {
            key.removeprefix(f"{start}."): value
            for key, value in self._fields.items()
            if key.startswith(f"{start}.") and isinstance(value, int | float | str)
        }

    def field(self, key: str, default: Any = None, *, errors: str = "strict") -> Any:
        """A number, a text, a flag or a list of them; a list is read from the file here, at each call.

        `errors` is what becomes of texts in a list that are no UTF-8, as bytes.decode has it. Raises WeightsError.
        """
        value = self._fields.get(key := self._full(key), default)
        if not isinstance(value, _Passed):
            return value
        with _walking(self.file, value.start) as walk:
            return walk.entries(key, value, errors)

    def length(self, key: str) -> int:
        """How many entries a list has; 0 where there is none. Reads nothing."""
        value = self._fields.get(self._full(key))
        return value.length if isinstance(value, _Passed) else 0

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number; the largest of those given for each layer. Raises WeightsError where it is missing."""
        value = self.field(key, default)
        numbers = value if isinstance(value, list) and value else [value]
        if not all(isinstance(number, int) for number in numbers):
            raise WeightsError(f"{self.file}: the metadata lacks {self._full(key)}")
        return int(max(numbers))

    def _full(self, key: str) -> str:
        return key.replace("%", self.architecture) if "%" in key else key


@contextmanager
def _walking(file: Path, at: int = 0) -> Iterator["_Walk"]:
    """The file from the byte `at` on; what goes wrong on the way is told with its name."""
    try:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if size else None
    except OSError as error:
        raise WeightsError(f"{file}: {error.strerror or error}") from error
    if mapped is None:
        raise WeightsError(f"{file}: not a whole GGUF file: it is empty")
    with mapped:
        try:
            yield _Walk(mapped, at)
        except WeightsError as error:
            raise WeightsError(f"{file}: not a whole GGUF file: {error}") from None


class _Walk:
    """Reads a file on from some place; what reaches over its end is an error."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self._data = data
        self._at = at
        self._reading = "its first bytes"

    def header(self) -> tuple[dict[str, Any], dict[str, Entry]]:
        if self._take(4) != _MAGIC:
            raise WeightsError("it does not begin with GGUF")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise WeightsError(f"version {version} is not read; {' and '.join(map(str, _VERSIONS))} are")
        tensors, keys = self._number("<Q"), self._number("<Q")
        fields: dict[str, Any] = {}
        for _ in range(keys):
            self._reading = "the metadata"
            key = self._text()
            self._reading = key
            if key in fields:
                raise WeightsError(f"{key} comes twice in the metadata")
            fields[key] = self._value(self._number("<I"))
        return fields, self._tensors(tensors, fields.get("general.alignment", 32))

    def entries(self, key: str, passed: _Passed, errors: str) -> list[Any]:
        """The list that begins here, its lengths held against the file as it is now."""
        self._reading = key
        if passed.kind != _TEXT:
            form = _SCALARS[passed.kind]
            raw = self._take(passed.length * struct.calcsize(form))
            found: list[Any] = np.frombuffer(raw, np.dtype(form)).tolist()
            return found
        return [self._text(errors) for _ in range(passed.length)]

    # ---- the metadata -------------------------------------------------------------------------------------------

    def _value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind == _LIST:
            return self._passed()
        if kind not in _SCALARS:
            raise WeightsError(f"{self._reading} is of type {kind}, which is not known here")
        return self._number(_SCALARS[kind])

    def _passed(self) -> _Passed:
        passed = _Passed(self._number("<I"), self._number("<Q"), self._at)
        if passed.kind == _TEXT:
            self._pass_texts(passed.length)
        elif passed.kind in _SCALARS:
            self._pass(passed.length * struct.calcsize(_SCALARS[passed.kind]))
        else:
            # Lists of lists are allowed by the format; nothing that is read here has any.
            raise WeightsError(f"{self._reading} is a list of type {passed.kind}, which is not read here")
        return passed

    def _pass_texts(self, count: int) -> None:
        # The names are local because a vocabulary has hundreds of thousands of texts.
        at, data, length = self._at, self._data, _LENGTH.unpack_from
        try:
            for _ in range(count):
                at += 8 + length(data, at)[0]
        except (struct.error, OverflowError):
            raise self._cut() from None
        self._pass(at - self._at)

    # ---- the tensors --------------------------------------------------------------------------------------------

    def _tensors(self, count: int, step: object) -> dict[str, Entry]:
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
        if isinstance(step, bool) or not isinstance(step, int) or not 0 < step <= 1 << 20:
            raise WeightsError(f"general.alignment is {step!r}")
        start = -(-self._at // step) * step
        entries = {name: self._entry(name, size, kind, start + offset) for name, (size, kind, offset) in found.items()}
        apart((name, each.start, each.bytes) for name, each in entries.items())
        return entries

    def _entry(self, name: str, size: tuple[int, ...], kind: int, start: int) -> Entry:
        each, octets = BLOCKS.get(kind, _UNKNOWN)
        if size and size[-1] % each and kind in BLOCKS:
            raise WeightsError(f"the tensor {name} has rows of {size[-1]}, but its type comes in blocks of {each}")
        length = math.prod(size) // each * octets
        over = start + length - len(self._data)
        if over > 0:
            raise WeightsError(f"cut off or corrupt: the tensor {name} ends {over} bytes after it")
        return Entry(name, size, kind, start, length)

    # ---- bytes --------------------------------------------------------------------------------------------------

    def _pass(self, count: int) -> int:
        """Go on by `count` bytes; returns where they began."""
        begun = self._at
        if begun + count > len(self._data):
            raise self._cut()
        self._at = begun + count
        return begun

    def _take(self, count: int) -> bytes:
        begun = self._pass(count)
        return self._data[begun : self._at]

    def _number(self, form: str) -> Any:
        return struct.unpack_from(form, self._data, self._pass(struct.calcsize(form)))[0]

    def _text(self, errors: str = "strict") -> str:
        try:
            return self._take(self._number("<Q")).decode(errors=errors)
        except UnicodeDecodeError:
            raise WeightsError(f"corrupt in {self._reading}: a text is not UTF-8") from None

    def _cut(self) -> WeightsError:
        return WeightsError(f"cut off or corrupt in {self._reading}")


# ---- folders --------------------------------------------------------------------------------------------------------


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object. Raises WeightsError with the file's name."""
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise WeightsError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: should hold a JSON object")
    return found


def config(folder: Path) -> dict[str, Any]:
    """config.json of a folder. Raises WeightsError naming it where it cannot be read."""
    return read_json(folder / "config.json")


def indexed(folder: Path) -> list[Path] | None:
    """The files that model.safetensors.index.json names, which are all there; None in a folder without one.

    Raises WeightsError naming what is missing or cannot be read.
    """
    index = folder / INDEX
    if not index.exists():
        return None
    told = read_json(index).get("weight_map")
    names = sorted({str(name) for name in told.values()}) if isinstance(told, dict) else []
    if not names or not all(Path(name).name == name for name in names):
        raise WeightsError(f"{index}: weight_map does not tell which file of this folder holds which tensor")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise WeightsError(f"{folder}: has no {' and no '.join(missing)}, which {INDEX} names")
    return [folder / name for name in names]


def listed(file: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file's header lists by the tensors' names, and the first byte of their data.

    Raises WeightsError naming the file where it has no such header.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH.size), "little")
            read = stream.read(length) if length <= size - _LENGTH.size else None
    except OSError as error:
        raise WeightsError(f"{file}: {error.strerror or error}") from error
    if read is None:
        raise WeightsError(f"{file}: cut off, or not a safetensors file")
    try:
        header = json.loads(read)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: its header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{file}: its header is not a JSON object")
    header.pop("__metadata__", None)
    return header, _LENGTH.size + length


def apart(places: Iterable[tuple[str, int, int]]) -> None:
    """Raises WeightsError where two tensors, each a name, its first byte and its length, lie in the same bytes."""
    before, end = "", 0
    for name, start, length in sorted(places, key=lambda place: place[1:]):
        if start < end and length:
            raise WeightsError(f"corrupt: the tensors {before} and {name} lie in the same bytes")
        before, end = name, start + length


def parts(files: Path) -> list[Path]:
    """Every file with weights of a .gguf file, which may be the first of several, or of a folder."""
    if files.is_dir():
        return sorted(files.glob("*.safetensors"))
    split = _SHARD.fullmatch(files.name)
    if split is None:
        return [files]
    return sorted(files.parent.glob(f"{split['stem']}-?????-of-{split['count']}.gguf"))
