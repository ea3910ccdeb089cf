"""Which keys and values a recipe may have at each of its places, read off the sections' types."""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr

from config.fault import KeyPath
from config.knowledge import SOURCES, source_kind
from config.recipe import Recipe
from config.section import Section
from config.tool import TOOLS, tool_kind


def names_at(tree: object, path: KeyPath) -> list[str]:
    """The keys that may stand directly under `path` in `tree`, empty where names are free."""
    sections = (member for member in _kinds(tree, path) if isinstance(member, type) and issubclass(member, Section))
    return [name for section in sections for name in section.model_fields]


def shows(tree: object, path: KeyPath) -> bool:
    """Whether `path` is a key whose value anybody may see."""
    kinds = _kinds(tree, path)
    return bool(kinds) and SecretStr not in kinds


def _kinds(tree: object, path: KeyPath) -> list[Any]:
    kinds: list[Any] = [Recipe]
    for step in path:
        tree = _below(tree, step)
        kinds = [inner for kind in kinds for inner in _inside(kind, step, tree)]
    return kinds


def _below(tree: object, step: str | int) -> object:
    if isinstance(tree, Mapping):
        return tree.get(step)
    return tree[step] if isinstance(tree, list) and isinstance(step, int) and step < len(tree) else None


def _inside(kind: Any, step: str | int, value: object) -> Iterator[Any]:
    if get_origin(kind) is Mapping:
        yield from _members(get_args(kind)[1], value)
    elif get_origin(kind) is tuple:
        yield from _members(get_args(kind)[0], value)
    elif isinstance(kind, type) and issubclass(kind, Section) and step in kind.model_fields:
        yield from _members(kind.model_fields[str(step)].annotation, value)


def _members(annotation: Any, value: object) -> Iterator[Any]:
    """The plain types behind an annotation; of several sections, the one that `value` is of."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0], value)
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member, value)
    elif not any(another(annotation, value) for another in (_another_engine, _another_source, _another_tool)):
        yield annotation


def _another_engine(kind: Any, value: object) -> bool:
    if not (isinstance(kind, type) and issubclass(kind, Section) and "engine" in kind.model_fields):
        return False
    chosen = value.get("engine") if isinstance(value, Mapping) else None
    return chosen not in get_args(kind.model_fields["engine"].annotation)


def _another_source(kind: Any, value: object) -> bool:
    return kind in SOURCES.values() and kind is not SOURCES[source_kind(value)]


def _another_tool(kind: Any, value: object) -> bool:
    chosen = tool_kind(value)
    return kind in TOOLS.values() and chosen is not None and kind is not TOOLS[chosen]
