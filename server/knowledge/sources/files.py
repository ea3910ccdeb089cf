"""Which files a glob or a folder names, safely: links do not lead out of the base folder. Reads no file's content."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from server.knowledge.report import Skipped

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FoundFile:
    """`path` is absolute and resolved; `uri` is its place below the base folder, with slashes."""

    path: Path
    uri: str


@dataclass(frozen=True)
class Scan:
    """`whole` is False where a part could not be looked at: what is missing from `files` may still exist."""

    files: tuple[FoundFile, ...]
    skipped: tuple[Skipped, ...]
    whole: bool


@dataclass(frozen=True)
class _Pattern:
    """A glob cut where its wildcards begin."""

    base: Path
    parts: tuple[str, ...]


def base_of(glob: str) -> Path:
    """The folder where a glob's wildcards begin; of one file, the folder it lies in."""
    return _parsed(glob).base


def scan(glob: str) -> Scan:
    """The files an absolute glob names, in order. `**` is any depth; hidden files only where they are named. Blocks."""
    pattern = _parsed(glob)
    if not pattern.base.is_dir():
        return Scan(
            (), (Skipped(str(pattern.base), "this folder does not exist; its documents are kept"),), whole=False
        )
    return _scanned(pattern)


def plain(glob: str, path: Path) -> FoundFile | None:
    """The file at an absolute path as a scan would find it; None where the glob names none there, or a link. Blocks."""
    pattern = _parsed(glob)
    base = pattern.base.resolve()
    if not path.is_relative_to(base) or path.resolve() != path or not path.is_file():
        return None
    below = path.relative_to(base)
    if not _matches(below.parts, pattern.parts) or _refusal(path, base):
        return None
    return FoundFile(path, below.as_posix())


def scan_folder(folder: Path) -> Scan:
    """Every file below `folder` that is not hidden, or the one file it is. Blocks."""
    if folder.is_file():
        return Scan((FoundFile(folder.resolve(), folder.name),), (), whole=True)
    return _scanned(_Pattern(folder, ("**", "*")))


def _parsed(glob: str) -> _Pattern:
    parts = Path(glob).parts
    first = next((n for n, part in enumerate(parts) if _WILD.search(part)), len(parts) - 1)
    return _Pattern(Path(*parts[:first]), parts[first:])


def _matches(names: Sequence[str], parts: Sequence[str]) -> bool:
    """Whether a path's names are what the glob's parts say; wildcards do not match a leading dot."""
    if not parts or not names:
        return not parts and not names
    if parts[0] == "**":
        deeper = not names[0].startswith(".") and _matches(names[1:], parts if len(names) > 1 else parts[1:])
        return deeper or _matches(names, parts[1:])
    shown = not names[0].startswith(".") or parts[0].startswith(".")
    return shown and fnmatchcase(names[0], parts[0]) and _matches(names[1:], parts[1:])


def _scanned(pattern: _Pattern) -> Scan:
    base = pattern.base.resolve()
    skipped: list[Skipped] = []
    faults: list[OSError] = []
    files: dict[Path, FoundFile] = {}
    for path in _walk(base, pattern.parts, faults):
        below = path.relative_to(base)
        if not _matches(below.parts, pattern.parts):
            continue
        uri = below.as_posix()
        reason = _refusal(path, base)
        if reason:
            skipped.append(Skipped(uri, reason))
        else:
            files.setdefault(path.resolve(), FoundFile(path.resolve(), uri))
    skipped += [Skipped(str(fault.filename), f"it cannot be listed: {fault.strerror}") for fault in faults]
    return Scan(tuple(sorted(files.values(), key=lambda file: file.uri)), tuple(skipped), whole=not faults)


def _walk(base: Path, parts: Sequence[str], faults: list[OSError]) -> Iterator[Path]:
    """The files below `base` as deep as the glob reaches, real ones before links; linked folders stay closed.

    A file that is also linked to is met under its own name first.
    """
    hidden = any(part.startswith(".") for part in parts)
    links: list[Path] = []
    for folder, folders, names in os.walk(base, onerror=faults.append):
        depth = len(Path(folder).relative_to(base).parts)
        deeper = "**" in parts or depth + 1 < len(parts)
        folders[:] = [name for name in folders if deeper and (hidden or not name.startswith("."))]
        for name in names:
            path = Path(folder, name)
            if path.is_symlink():
                links.append(path)
            else:
                yield path
    yield from links


def _refusal(path: Path, base: Path) -> str | None:
    """Why a path that matches is not taken, if it is not."""
    try:
        str(path).encode()
        real = path.resolve(strict=True)
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    except (OSError, RuntimeError):
        return "a link that leads nowhere"  # RuntimeError: a loop of links
    return None if real.is_relative_to(base) else "a link that leads out of the folder"
