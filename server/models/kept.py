"""Weights fetched from the hub, as they lie in the data directory: files and their sums. Knows nothing of the network.

DATA/models/OWNER/NAME/COMMIT/ holds the files of one commit, and in hearth.json a manifest of those that arrived whole
and with the right sum; what the manifest does not name is not there. Beside the commits, revisions.json says which
commit a branch or tag was when it was fetched, and .fetching-COMMIT/ holds what has arrived of a download so far.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from config.model import Projector, Source

MANIFEST = "hearth.json"
MAIN = "main"
"""The revision of a source that names none."""
COMMIT = re.compile(r"[0-9a-f]{40}")

_REVISIONS = "revisions.json"
_CHUNK = 2**20
_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


class Held(msgspec.Struct, frozen=True):
    """One file that was whole when its sum was last taken; `modified` is its st_mtime_ns then.

    `sum` is the hub's: "sha256:HEX" of a large file, or "git:HEX", git's blob id, of a small one.
    """

    bytes: int
    sum: str
    modified: int


class Manifest(msgspec.Struct, frozen=True):
    """What is here of one commit. `folder` says that config.json, the safetensors and their company are complete."""

    repository: str
    commit: str
    licence: str | None
    folder: bool
    files: dict[str, Held]


_manifests = msgspec.json.Decoder(Manifest)
_revisions = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True)
class Kept:
    """One source's weights on disk. `path` is what an engine opens, `files` are the names within `folder`."""

    folder: Path
    path: Path
    manifest: Manifest
    files: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(self.manifest.files[name].bytes for name in self.files)

    @property
    def untouched(self) -> bool:
        """Whether no file was written since its sum was last found right."""
        return all((self.folder / name).stat().st_mtime_ns == self.manifest.files[name].modified for name in self.files)


def found(source: Source, data: Path) -> Path | None:
    """The .gguf file or the folder of `source`, None where it is not fetched or made yet. Asks only the disk.

    Raises FileNotFoundError when a `pip:` distribution was removed since the recipe was read.
    """
    if source.is_made:
        path = path_of(source, data)
        return path if path.exists() else None
    if not source.is_remote:
        return source.path
    here = kept(source, data)
    return here.path if here else None


def path_of(source: Source, data: Path) -> Path:
    """Where the model of a `made:` source is kept, a .gguf file or a folder; or the projector made with it."""
    name = source.made
    file = "projector.gguf" if isinstance(source, Projector) else f"{name}.gguf" if source.is_gguf else name
    return data / "cache" / "made" / name / file


def kept(source: Source, data: Path) -> Kept | None:
    """What is on disk of a source on the hub, None unless it is complete and every file has its size."""
    repository, revision, file = source.repository
    home = home_of(repository, data)
    revision = revision or MAIN
    commit = revision if COMMIT.fullmatch(revision) else revisions(home).get(revision)
    if commit is None or (manifest := read(home / commit)) is None:
        return None
    if file is None:
        names = tuple(name for name in manifest.files if not name.endswith(".gguf")) if manifest.folder else ()
    else:
        names = shards(file)
    folder = home / commit
    if not names or not all(
        name in manifest.files and _is_there(folder / name, manifest.files[name]) for name in names
    ):
        return None
    return Kept(folder, folder / file if file else folder, manifest, names)


def everything(data: Path) -> Iterator[tuple[Path, Manifest]]:
    """Every commit on disk, by name."""
    for file in sorted((data / "models").glob(f"*/*/*/{MANIFEST}")):
        if COMMIT.fullmatch(file.parent.name) and (manifest := read(file.parent)) is not None:
            yield file.parent, manifest


def unfinished(data: Path) -> Iterator[tuple[str, int]]:
    """Downloads that were cut: "OWNER/NAME" and the bytes that arrived."""
    for folder in sorted((data / "models").glob("*/*/.fetching-*")):
        arrived = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield f"{folder.parent.parent.name}/{folder.parent.name}", arrived


def home_of(repository: str, data: Path) -> Path:
    return data.joinpath("models", *repository.split("/"))


def shards(file: str) -> tuple[str, ...]:
    """Every file of a model whose .gguf is `file`: llama.cpp splits large ones as NAME-00001-of-00003.gguf."""
    parts = _SHARD.fullmatch(file)
    if parts is None:
        return (file,)
    count = int(parts["count"])
    return tuple(f"{parts['stem']}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1))


def revisions(home: Path) -> dict[str, str]:
    """Which commit each branch or tag was when it was fetched."""
    try:
        return _revisions.decode((home / _REVISIONS).read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def read(folder: Path) -> Manifest | None:
    """The manifest of a commit's folder; None where there is none that can be read, and then nothing is there."""
    try:
        return _manifests.decode((folder / MANIFEST).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def write(folder: Path, manifest: Manifest) -> None:
    _replace(folder / MANIFEST, msgspec.json.encode(manifest))


def record(home: Path, revision: str, commit: str) -> None:
    """Note that `revision` is `commit` from now on. A commit needs no note."""
    if not COMMIT.fullmatch(revision):
        _replace(home / _REVISIONS, msgspec.json.encode(revisions(home) | {revision: commit}))


def sum_of(file: Path, kind: str, read_so_far: Callable[[int], None] = lambda _: None) -> str:
    """The sum of a file as the hub writes it, "KIND:HEX"; `kind` is sha256 or git, the id git gives to a blob.

    Method of git: git-scm.com/book, "Git Internals - Git Objects". `read_so_far` is told each number of bytes read.
    """
    if kind == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            read_so_far(len(chunk))
    return f"{kind}:{digest.hexdigest()}"


def held(file: Path, total: str) -> Held:
    """A file whose sum was just found to be `total`."""
    status = file.stat()
    return Held(status.st_size, total, status.st_mtime_ns)


def verify(here: Kept, read_so_far: Callable[[int], None] = lambda _: None) -> dict[str, str]:
    """Take every sum again; the broken files with the sum each has instead, empty where all are right.

    A broken file is struck from the manifest, so that it counts as not fetched and the next download replaces it.
    """
    with alone(here.folder.parent):
        manifest = read(here.folder) or here.manifest
        files = dict(manifest.files)
        broken = {}
        for name in here.files:
            file = here.folder / name
            taken = sum_of(file, files[name].sum.partition(":")[0], read_so_far)
            if taken == files[name].sum:
                files[name] = held(file, taken)
            else:
                broken[name] = taken
                del files[name]
        folder = manifest.folder and all(name.endswith(".gguf") for name in broken)
        write(here.folder, msgspec.structs.replace(manifest, files=files, folder=folder))
    return broken


@contextlib.contextmanager
def alone(home: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the repository's folder against other processes; `waiting` is called every half second until it is free."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".lock").open("wb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(0.5)
        yield  # closing the file lets go


def _is_there(file: Path, expected: Held) -> bool:
    try:
        return file.stat().st_size == expected.bytes
    except OSError:
        return False


def _replace(file: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    fresh = file.with_name(f".{file.name}.new")
    with fresh.open("wb") as writing:
        writing.write(content)
        writing.flush()
        os.fsync(writing.fileno())
    fresh.replace(file)
