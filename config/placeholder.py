"""Fills `${env:X}`, `${env:X:-default}` and `${file:path}` into a recipe's text; knows no section."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.document import Problem
from config.fault import KeyPath
from config.places import is_file
from config.section import Outside, SecretFile, shown

LARGEST_FILE = 64 * 1024

_PLACEHOLDER = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


class _Missing(Exception):
    """One placeholder has nothing to stand for; the text says why."""


@dataclass
class Filler:
    """Collects what cannot be filled in `problems`, their paths in `broken`, the paths of secrets in `secret`.

    `files` are those that were read, or should have been.
    """

    folder: Path
    environ: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)
    secret: list[KeyPath] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def fill(self, value: object, path: KeyPath = ()) -> object:
        """`value` with every placeholder in its texts replaced; keys stay as they are, nothing is changed in place."""
        match value:
            case dict():
                return {key: self.fill(inner, (*path, key)) for key, inner in value.items()}
            case list():
                return [self.fill(inner, (*path, position)) for position, inner in enumerate(value)]
            case Outside():
                return value
            case str():
                return self._text(value, path)
            case _:
                return value

    def _text(self, text: str, path: KeyPath) -> str:
        kind: type[str] = str
        parts: list[str] = []
        for piece in _pieces(text):
            try:
                part = self._piece(piece)
            except _Missing as missing:
                self.problems.append(Problem(path, str(missing)))
                self.broken.add(path)
                continue
            kind = max(kind, type(part), key=_reserve)
            parts.append(part)
        if issubclass(kind, SecretFile):
            self.secret.append(path)
        return kind("".join(parts))

    def _piece(self, piece: str | re.Match[str]) -> str:
        if isinstance(piece, str):
            return piece
        if piece[0] == "$${":
            return "${"
        scheme, _, rest = (piece[1] or "").partition(":")
        match scheme:
            case "env":
                return self._variable(rest)
            case "file":
                return self._file(rest)
        raise _Missing("a placeholder is ${env:NAME}, ${env:NAME:-default} or ${file:path}; a plain ${ is written $${")

    def _variable(self, rest: str) -> Outside:
        found = _VARIABLE.fullmatch(rest)
        if found is None:
            raise _Missing("what stands in ${env:...} is not the name of a variable")
        name, default = found.groups()
        if default is not None:
            return Outside(self.environ.get(name) or default)
        if name not in self.environ:
            raise _Missing(f"the environment variable {name} is not set; ${{env:{name}:-...}} would give it a default")
        return Outside(self.environ[name])

    def _file(self, rest: str) -> SecretFile:
        path = self.folder / rest
        self.files.append(path)
        if "\0" in rest or not is_file(path):
            raise _Missing(f"the file {shown(rest)} does not exist")
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise _Missing(f"the file {shown(rest)} cannot be read: {error.strerror}") from None
        if len(content) > LARGEST_FILE:
            raise _Missing(f"the file {shown(rest)} is larger than {LARGEST_FILE // 1024} KiB")
        try:
            return SecretFile(content.decode("utf-8").strip())
        except UnicodeDecodeError:
            raise _Missing(f"the file {shown(rest)} is not UTF-8 text") from None


def _pieces(text: str) -> Iterator[str | re.Match[str]]:
    at = 0
    for found in _PLACEHOLDER.finditer(text):
        yield text[at : found.start()]
        yield found
        at = found.end()
    yield text[at:]


def _reserve(kind: type[str]) -> int:
    """How carefully text is handled: what is joined is as secret as its most secret part."""
    return len(kind.__mro__)
