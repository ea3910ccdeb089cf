"""`hearth keys`: makes, lists and removes the keys of a keys file; a running server follows within a second."""

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from config import Recipe, RecipeError, all_keys, keys_in
from config.key import Key, digest

_PREFIX = "sk-hearth-"
_RANDOM_BYTES = 32
_HEAD = "# Kept by `hearth keys`, which writes it anew: hashes of keys, never keys.\n"


def add(
    recipe: Recipe,
    name: str,
    scopes: Sequence[str],
    expires: str | None,
    limits: Mapping[str, int | None],
    out: Console,
    err: Console,
) -> int:
    """Make a key, keep its hash, and print it this once; returns the exit code."""
    path = _declared(recipe, err)
    if path is None:
        return 1
    secret = _PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)
    told = {"name": name, "hash": digest(secret), "scopes": list(scopes), "expires": expires}
    try:
        key = Key.model_validate(told | {"limits": limits})
        with _alone(path):
            if any(other.name == key.name for other in all_keys(recipe)):
                err.print(f"There is a key of the name {key.name} already.", markup=False)
                return 1
            _write(path, (*keys_in(path), key))
    except ValidationError as error:
        err.print("; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()))
        return 1
    except (RecipeError, OSError) as error:
        err.print(str(error), markup=False)
        return 1
    err.print(f"This is the key of {key.name}. It is not kept and cannot be shown again.", markup=False)
    out.print(secret, markup=False)
    return 0


def remove(recipe: Recipe, name: str, err: Console) -> int:
    """Take a key out of the file; returns the exit code."""
    path = _declared(recipe, err)
    if path is None:
        return 1
    try:
        with _alone(path):
            before = keys_in(path)
            after = [key for key in before if key.name != name]
            if len(after) == len(before):
                where = "stands in the recipe itself" if name in _names(recipe.server.keys) else "is not in the file"
                err.print(f"The key {name} {where}; {path} has: {', '.join(_names(before)) or 'none'}.", markup=False)
                return 1
            _write(path, after)
    except (RecipeError, OSError) as error:
        err.print(str(error), markup=False)
        return 1
    return 0


def show(recipe: Recipe, out: Console, err: Console) -> int:
    """Print all keys in force: where each stands and what it may; returns the exit code."""
    table = Table(box=None, pad_edge=False)
    for column in ("name", "scopes", "expires", "limits", "declared in"):
        table.add_column(column, overflow="fold")
    try:
        keys = all_keys(recipe)
    except RecipeError as error:
        err.print(str(error), markup=False)
        return 1
    here = set(_names(recipe.server.keys))
    for key in keys:
        limits = key.limits.model_dump(exclude_none=True)
        table.add_row(
            key.name,
            ", ".join(sorted(key.scopes)),
            "never" if key.expires is None else key.expires.isoformat() + _expired(key),
            ", ".join(f"{limit} {value}" for limit, value in limits.items()) or "as server.limits",
            str(recipe.path if key.name in here else recipe.server.keys_file),
        )
    out.print(table if keys else "No keys are declared.")
    return 0


def _expired(key: Key) -> str:
    return " (expired)" if key.expires is not None and key.expires <= datetime.now(UTC) else ""


def _names(keys: Sequence[Key]) -> list[str]:
    return [key.name for key in keys]


def _declared(recipe: Recipe, err: Console) -> Path | None:
    path = recipe.server.keys_file
    if path is None:
        err.print(f"{recipe.path}: declare where keys are kept first: server: {{keys_file: ./keys.yaml}}", markup=False)
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold other `hearth keys` off. The folder is locked and not the file, which is replaced."""
    folder = os.open(path.resolve().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(path: Path, keys: Sequence[Key]) -> None:
    """The whole file at once, for its owner's eyes only; a server that reads meanwhile sees the old or the new one."""
    text = _HEAD + yaml.safe_dump({"keys": [_entry(key) for key in keys]}, sort_keys=False)
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(file, "w", encoding="utf-8") as writing:
            writing.write(text)
            writing.flush()
            os.fsync(writing.fileno())
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _entry(key: Key) -> dict[str, object]:
    told = key.model_dump(mode="json", exclude_none=True)
    return {part: value for part, value in told.items() if value != {}}
