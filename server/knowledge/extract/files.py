"""Documents in files, each with the licence that may lie beside it. Blocks: not for the event loop."""

from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from server.knowledge.attributes import Types
from server.knowledge.document import Document, Unreadable, Unsupported, document_id
from server.knowledge.extract.decoded import decoded
from server.knowledge.extract.document_of import read_document
from server.knowledge.extract.front_matter import spdx_licence

MAX_BYTES = 32 * 1024 * 1024
_SIDECAR = ".license"
"""What REUSE appends to a file's name for the file that tells its licence."""


def fingerprint(path: Path) -> str:
    """The hash of a file's bytes and of its licence's. Raises Unreadable."""
    return _hash(_bytes(path), _sidecar(path))


def extract(path: Path, uri: str, source: str, types: Types) -> Document:
    """The document in the file at `path`, which is absolute and resolved; `types` are the declared attributes.

    Spans of Markdown, plain text and source code are characters of the file itself, read with universal newlines;
    those of other formats are characters of their text. Raises Unreadable. May take seconds where the file is large.
    """
    raw, beside = _bytes(path), _sidecar(path)
    if path.suffix == _SIDECAR and path.with_suffix("").exists():
        raise Unsupported(f"it tells the licence of {path.with_suffix('').name}")
    read = read_document(raw, document_id(path), path.name, types)
    licence = spdx_licence(decoded(beside)) if beside else None
    return replace(
        read, uri=uri, source=source, path=str(path), licence=licence or read.licence, hash=_hash(raw, beside)
    )


def extract_upload(path: Path, each: str, filename: str, types: Types) -> Document:
    """As `extract`, for an upload: its bytes lie at `path` under another name, and its id is `each`."""
    return read_document(_bytes(path), each, filename, types)


def _hash(raw: bytes, beside: bytes) -> str:
    return blake2b(beside + raw if beside else raw, digest_size=16).hexdigest()


def _sidecar(path: Path) -> bytes:
    """The bytes of the file beside it that tells its licence; empty where there is none."""
    beside = path.with_name(path.name + _SIDECAR)
    return _bytes(beside) if beside.is_file() else b""


def _bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise Unreadable("it is not a regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise Unreadable(f"it is larger than {MAX_BYTES // 1024**2} MiB")
    return raw
