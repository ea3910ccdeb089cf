"""Builds a model once: a finished folder is used again until what was asked, or the code that wrote it, changes."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

_KEY = "made.json"


def once(folder: Path, key: str, write: Callable[[Path], None]) -> None:
    """Have `write` fill a folder that is then put at `folder`, unless one is there that was written for `key`.

    A reader sees one model or the other, whole. A folder this did not write is left alone: FileExistsError.
    """
    if _key_of(folder) == key:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as room:
        fresh = Path(room) / "fresh"
        fresh.mkdir()
        write(fresh)
        (fresh / _KEY).write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
        _replace(folder, fresh, Path(room) / "old", key)


def _key_of(folder: Path) -> str | None:
    try:
        key = json.loads((folder / _KEY).read_text(encoding="utf-8"))["key"]
    except FileNotFoundError:
        return None
    return str(key)


def _replace(folder: Path, fresh: Path, old: Path, key: str) -> None:
    """Put `fresh` in the place of `folder`, both of one file system."""
    if folder.exists() and any(folder.iterdir()):
        if _key_of(folder) is None:
            raise FileExistsError(f"{folder} holds other files; give an empty folder, or one a model was made in")
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if _key_of(folder) != key:
            raise
        # Another process finished the same model first: it is as good.
