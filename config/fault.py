"""What is wrong with a recipe and where; knows neither YAML nor pydantic."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]
"""The way from the root of a recipe to one of its keys: names of mappings, positions in lists."""

MOST_NAMES = 200
"""Comparing names costs time; past this many nobody reads a guess anyway."""


@dataclass(frozen=True)
class Fault:
    """One mistake. `file` is the recipe, the environment variable or the command line that holds it.

    `line` counts from 1 and is None where there are no lines. `key` is the dotted path, empty for the whole recipe.
    `suggestion` is the nearest valid name or spelling.
    """

    file: str
    line: int | None
    key: str
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        parts = [place, self.key, self.message] if self.key else [place, self.message]
        guess = "" if self.suggestion is None else f', did you mean "{self.suggestion}"?'
        return ": ".join(parts) + guess


class RecipeError(Exception):
    """A recipe that cannot be served: `faults` holds every mistake that was found, in the order of the file."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


def dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def nearest(name: str, names: Collection[str]) -> str | None:
    """The name that was probably meant, None where nothing is near."""
    if len(names) > MOST_NAMES:
        return None
    by_fold = {other.casefold(): other for other in names}
    found = difflib.get_close_matches(name[:MOST_NAMES].casefold(), by_fold, n=1, cutoff=0.6)
    return by_fold[found[0]] if found else None
