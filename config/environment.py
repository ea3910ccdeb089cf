"""Lays `HEARTH__...` variables and the command line over a recipe's plain values; of sections it knows the names."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from config.document import DEEPEST, Problem
from config.fault import KeyPath, nearest
from config.section import Outside

PREFIX = "HEARTH__"
COMMAND_LINE = "command line"
NAMED = {"models": "model", "knowledge": "collection", "assistants": "assistant", "tools": "tool"}
"""The sections whose entries a recipe names, and what an entry is."""


@dataclass(frozen=True)
class Stray:
    """A setting that names nothing: who says it, and what is wrong."""

    origin: str
    problem: Problem


@dataclass
class Overlay:
    """Values laid over a tree: `origins` tells who set each path, `strays` what could not be laid."""

    tree: object
    origins: dict[KeyPath, str] = field(default_factory=dict)
    strays: list[Stray] = field(default_factory=list)

    def environment(self, environ: Mapping[str, str]) -> None:
        """Lay every HEARTH__SECTION__KEY over the tree; names match in any case, `_` also stands for `-` and `.`."""
        names = {name.lower(): name for name in sorted(environ) if name.upper().startswith(PREFIX)}
        kept = {low: environ[name] for low, name in names.items() if self._known(name, _segments(low), _fold)}
        origins = {_segments(low): name for low, name in names.items()}
        self._lay((), _parsed(kept), _VariableNames(origins))

    def command_line(self, overrides: Mapping[str, object]) -> None:
        """Lay dotted keys over the tree; a name that itself has dots is found where the recipe has it."""
        for dotted, value in overrides.items():
            path = _split(self.tree, dotted)
            if self._known(COMMAND_LINE, path, str):
                self._lay((), _nested(path, _outside(value)), None)

    def _known(self, origin: str, path: KeyPath, fold: Callable[[str], str]) -> bool:
        """Whether the entry that `path` leads into is one of the recipe's; a stray is noted otherwise."""
        if len(path) > DEEPEST:
            self.strays.append(Stray(origin, Problem((), f"more than {DEEPEST} levels deep")))
            return False
        if len(path) < 2 or path[0] not in NAMED:
            return True
        section, name = str(path[0]), str(path[1])
        there = list(_mapping(_mapping(self.tree).get(section)))
        matches = [other for other in there if fold(other) == fold(name)]
        if len(matches) == 1:
            return True
        what = NAMED[section]
        if matches:
            message, guess = f"this may mean each of {', '.join(matches)}", None
        else:
            message, guess = f'the recipe has no {what} "{name}"', nearest(name, there)
        self.strays.append(Stray(origin, Problem((section,), message, guess)))
        return False

    def _lay(self, path: KeyPath, over: object, variables: "_VariableNames | None") -> None:
        self.tree = self._merged(self.tree, over, path, path, variables)

    def _merged(
        self, base: object, over: object, path: KeyPath, written: KeyPath, variables: "_VariableNames | None"
    ) -> object:
        """`over` on top of `base`, which stays as it was. `written` is the path as the variable's name spells it."""
        if not isinstance(over, dict) or not isinstance(base, Mapping):
            self.origins[path] = COMMAND_LINE if variables is None else variables.of(written)
        if not isinstance(over, dict):
            # What was empty, or stood where no JSON is looked for, comes as bare text.
            return Outside(over) if type(over) is str else over
        merged = dict(_mapping(base))
        for key, inner in over.items():
            name = key if variables is None else _spelled(key, merged)
            merged[name] = self._merged(merged.get(name), inner, (*path, name), (*written, key), variables)
        return merged


class _VariableNames:
    """Which variable set a path: that of its longest beginning, or the first that sets something below it."""

    def __init__(self, names: Mapping[KeyPath, str]) -> None:
        self._names = names

    def of(self, path: KeyPath) -> str:
        beginnings = (path[:length] for length in range(len(path), 0, -1))
        below = (name for start, name in self._names.items() if start[: len(path)] == path)
        return next((self._names[start] for start in beginnings if start in self._names), next(below, PREFIX))


class _Tree(BaseSettings):
    model_config = SettingsConfigDict(env_nested_delimiter="__")

    hearth: dict  # type: ignore[type-arg]  # only for a bare dict does pydantic-settings decode JSON at every depth


class _Variables(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        return _outside(value)


def _parsed(variables: Mapping[str, str]) -> object:
    source = _Variables(_Tree)
    # Sorted, so that a whole section given as JSON comes before single keys of it and does not wipe them out.
    source.env_vars = dict(sorted(variables.items()))
    return source().get("hearth", {})


def _segments(lowered: str) -> KeyPath:
    return tuple(lowered[len(PREFIX) :].split("__"))


def _fold(name: str) -> str:
    return re.sub(r"[-.]", "_", name).lower()


def _spelled(key: str, names: Mapping[str, object]) -> str:
    if key in names:
        return key
    return next((name for name in names if _fold(name) == _fold(key)), key)


def _outside(value: object) -> object:
    """What a text from outside stands for: JSON lists and mappings are read, all else stays text."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith(("[", "{")):
        return Outside(value)
    try:
        return _marked(json.loads(value))
    except (ValueError, RecursionError):
        return Outside(value)


def _marked(value: object, depth: int = 0) -> object:
    if depth > DEEPEST:
        raise ValueError("too deep")
    match value:
        case dict():
            return {key: _marked(inner, depth + 1) for key, inner in value.items()}
        case list():
            return [_marked(inner, depth + 1) for inner in value]
        case str():
            return Outside(value)
        case _:
            return value


def _split(tree: object, dotted: str) -> KeyPath:
    """The keys of a dotted path; at each level the longest name that `tree` has wins."""
    path: list[str] = []
    rest = dotted.split(".")
    while rest:
        names = _mapping(tree)
        joined = (".".join(rest[:count]) for count in range(len(rest), 0, -1))
        name = next((candidate for candidate in joined if candidate in names), rest[0])
        path.append(name)
        rest = rest[name.count(".") + 1 :]
        tree = names.get(name)
    return tuple(path)


def _nested(path: KeyPath, value: object) -> object:
    for key in reversed(path):
        value = {key: value}
    return value


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
