"""An encoder's weights by their names, from one safetensors file or several. Knows no family and no graph.

The layout is that of github.com/huggingface/safetensors, README.md, "Format"; how several files are one model is told
by model.safetensors.index.json.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from server.models.header import indexed

ONE = "model.safetensors"


class Unfit(ValueError):
    """A tensor that is not what config.json leads one to expect."""


class Tensors:
    """The tensors of some files as float32; bfloat16 too, which numpy and so safetensors' numpy do not know."""

    def __init__(self, opened: Mapping[Path, Any]) -> None:
        """`opened` are the files as safe_open gives them, which has checked their headers."""
        self._opened = opened
        self._homes = {name: file for file, tensors in opened.items() for name in tensors.keys()}  # noqa: SIM118
        self.names = frozenset(self._homes)

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Raises Unfit where there is no such tensor of that shape."""
        file, kind = self._found(name, shape)
        match kind:
            case "BF16":
                return (self._halves(name, file).astype(np.uint32) << 16).view(np.float32).reshape(shape)
            case "F16" | "F32" | "F64":
                return np.ascontiguousarray(self._opened[file].get_tensor(name), np.float32)
            case "I8" if f"{name}_scale" in self.names:
                scale = self.read(f"{name}_scale", (shape[0], 1))
                return np.asarray(self._opened[file].get_tensor(name) * scale, np.float32)
            case other:
                raise Unfit(f"{name} is {other}; BF16, F16, F32 and F64 are read, and I8 with its scales")

    def bfloats(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint16] | None:
        """The same as it is stored, the bits of each number, where it is bfloat16; None where it is anything else."""
        file, kind = self._found(name, shape)
        return self._halves(name, file).reshape(shape) if kind == "BF16" else None

    def _found(self, name: str, shape: tuple[int, ...]) -> tuple[Path, str]:
        file = self._homes.get(name)
        if file is None:
            raise Unfit(f"has no tensor {name}")
        told = self._opened[file].get_slice(name)
        if told.get_shape() != list(shape):
            raise Unfit(f"{name} is {told.get_shape()}, by config.json it should be {list(shape)}")
        return file, str(told.get_dtype())

    @staticmethod
    def _halves(name: str, file: Path) -> NDArray[np.uint16]:
        with file.open("rb") as content:
            size = int.from_bytes(content.read(8), "little")
            start, end = json.loads(content.read(size))[name]["data_offsets"]
            content.seek(8 + size + start)
            return np.frombuffer(content.read(end - start), "<u2")


class Layered(Tensors):
    """The tensors of one model, and of another those that it has not."""

    def __init__(self, first: Tensors, rest: Tensors) -> None:
        self._first = first
        self._rest = rest
        self.names = first.names | rest.names

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return (self._first if name in self._first.names else self._rest).read(name, shape)


def files_of(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder. Raises ValueError naming what is missing or cannot be read."""
    one = folder / ONE
    return [one] if one.exists() else indexed(folder) or [one]


@contextmanager
def opened(files: Sequence[Path]) -> Iterator[Tensors]:
    """The tensors of `files` as long as the context lasts: mapped, not loaded.

    Raises ValueError naming the file, also where the context raises Unfit.
    """
    with ExitStack() as stack:
        found: dict[Path, Any] = {}
        for file in files:
            try:
                found[file] = stack.enter_context(safe_open(file, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{file}: cannot be read: {error}") from error
        try:
            yield Tensors(found)
        except Unfit as error:
            raise ValueError(f"{_told(files)}: {error}") from error
        except (SafetensorError, TypeError) as error:
            raise ValueError(f"{_told(files)}: cannot be read: {error}") from error


def _told(files: Sequence[Path]) -> Path:
    return files[0] if len(files) == 1 else files[0].parent
