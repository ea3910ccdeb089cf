"""Turns what pydantic found into sentences about a recipe; never repeats a value that may be secret."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from config.bucket import PLACES
from config.contradiction import CONTRADICTS, TASKS
from config.document import Problem
from config.fault import KeyPath, nearest
from config.recipe import DISAGREE
from config.section import Outside, shown
from config.shape import names_at
from config.tool import TOOLS

WANTED = {
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "bool_type": "should be true or false",
    "tuple_type": "should be a list",
    "frozen_set_type": "should be a list",
    "dict_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "model_attributes_type": "should be a mapping of keys to values",
}


def explain(errors: list[ErrorDetails], tree: object) -> Iterator[Problem]:
    """One Problem for each error; those that `disagreements` finds by itself are left to it."""
    for error in errors:
        if error["type"] == CONTRADICTS:
            path = _path(error["loc"])
            for each in error["ctx"]["found"]:
                yield Problem((*path, each.key), each.message, each.suggestion)
        elif error["type"] != DISAGREE:
            yield _problem(error, _path(error["loc"]), tree)


def _path(loc: tuple[str | int, ...]) -> KeyPath:
    """The error's place as the recipe has it: without pydantic's marks for kinds of sections and for keys."""
    if loc[-1:] == ("[key]",):
        return _path(loc[:-1])
    if loc[:1] == ("knowledge",) and loc[2:3] == ("sources",):
        return (*loc[:4], *loc[5:])
    if loc[:1] == ("tools",) and loc[3:4] == ("mcp",) and len(loc) > 4:
        return (*loc[:2], "mcp", *loc[5:])
    if loc[:1] == ("policies",) and len(loc) > 3 and loc[3] in PLACES:
        return (*loc[:3], *loc[4:])
    return (*loc[:2], *loc[3:]) if loc[:1] in (("models",), ("tools",)) else loc


def _problem(error: ErrorDetails, path: KeyPath, tree: object) -> Problem:
    context: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "recipe":
            return Problem(path, context["message"], context["suggestion"])
        case "extra_forbidden":
            return _unknown_key(path, tree)
        case "missing":
            return Problem(path[:-1], f'the key "{path[-1]}" is missing')
        case "union_tag_not_found" if path[:1] == ("tools",):
            return _no_kind(path, error["input"])
        case "union_tag_not_found":
            return Problem(path, f'the key "engine" is missing: one of {", ".join(TASKS)}')
        case "union_tag_invalid":
            return _one_of((*path, "engine"), error["input"]["engine"], list(TASKS))
        case "literal_error":
            return _one_of(path, error["input"], _choices(context))
        case "too_short":
            return Problem(path, "should have at least one item")
        case kind if kind in WANTED:
            return Problem(path, f"{WANTED[kind]}, {_instead(error['input'])}{_hint(kind, error['input'])}")
        case _:
            return Problem(path, error["msg"].removeprefix("Input ").removeprefix("Value "))


def _unknown_key(path: KeyPath, tree: object) -> Problem:
    name, names = str(path[-1]), names_at(tree, path[:-1])
    guess = nearest(name, names)
    there = f"; there are {', '.join(names)}" if names and guess is None else ""
    return Problem(path[:-1], f"unknown key {shown(name)}{there}", guess, at=path)


def _no_kind(path: KeyPath, value: object) -> Problem:
    """Of a tool that no key says the kind of."""
    message = f"one of the keys {', '.join(TOOLS)} is missing"
    if not isinstance(value, Mapping):
        return Problem(path, "should be a mapping of keys to values")
    return Problem(path, message, next(filter(None, (nearest(str(key), list(TOOLS)) for key in value)), None))


def _one_of(path: KeyPath, value: object, choices: list[str]) -> Problem:
    said = f"{shown(value)} is" if isinstance(value, str) else "this is"
    guess = nearest(value, choices) if isinstance(value, str) else None
    return Problem(path, f"{said} not one of {', '.join(choices)}", guess)


def _choices(context: Mapping[str, Any]) -> list[str]:
    """The words of a literal, from pydantic's "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", str(context.get("expected", "")))


def _instead(value: object) -> str:
    match value:
        case None:
            return "and nothing stands here; give it a value or remove the key"
        case bool():
            return "not true or false"
        case int():
            return "not a number"
        case float():
            return "not a fraction"
        case str():
            return "not text"
        case list():
            return "not a list"
        case _:
            return "not a mapping"


def _hint(kind: str, value: object) -> str:
    if kind == "string_type" and isinstance(value, int | float):
        return "; put it in quotes"
    if kind not in ("string_type", "int_type", "float_type", "bool_type") and isinstance(value, Outside):
        return "; a variable writes it as JSON"
    return ""
