"""What tells the weights of one model from another's, whatever the recipe calls either. Reads files; loads nothing."""

from hashlib import blake2b
from pathlib import Path

from server.models.header import parts

_TOLD_BY = (
    "config.json",
    "tokenizer.json",
    "modules.json",
    "*_Pooling/config.json",
    "sentence_bert_config.json",
)
"""What decides, beside the weights, which vector a text gets."""
_BLOCKS = 1024
_BLOCK = 4096


def identity(files: Path, before: str = "") -> str:
    """32 hexadecimal digits for a .gguf file or a folder. Raises OSError. Reads at most 4 MiB of each file of weights.

    `before` is what goes before every document that is embedded: other words, other vectors.
    Of weights the length, the beginning, where tensors have their names and sizes, and blocks from all over count:
    training moves every tensor. So a model of gigabytes is told in a fraction of a second.
    """
    state = blake2b(digest_size=16)
    if files.is_dir():
        for pattern in _TOLD_BY:
            for file in sorted(files.glob(pattern)):
                _add(state, pattern.encode(), file.read_bytes())
    for part in parts(files):
        _add(state, b"weights", _sampled(part))
    if before:
        _add(state, b"before", before.encode())
    return state.hexdigest()


def _add(state: blake2b, name: bytes, content: bytes) -> None:
    state.update(name + len(content).to_bytes(8, "little") + content)


def _sampled(file: Path) -> bytes:
    size = file.stat().st_size
    if size <= _BLOCKS * _BLOCK:
        return file.read_bytes()
    with file.open("rb") as weights:
        found = [size.to_bytes(8, "little")]
        for n in range(_BLOCKS):
            weights.seek(n * (size - _BLOCK) // (_BLOCKS - 1))
            found.append(weights.read(_BLOCK))
    return b"".join(found)
