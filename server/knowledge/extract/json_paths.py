"""JSON and JSON Lines: each value a line `path: value`, each object or entry that can stand alone a record."""

from collections.abc import Iterator
from typing import Any

import msgspec

from server.knowledge.document import Unreadable
from server.knowledge.extract.reading import Reading, of_records

_MAX_DEPTH = 100


def read_json(text: str) -> Reading:
    """The values under their paths, such as `servers[0].port: 8080`. Raises Unreadable."""
    return of_records(_records("", _decoded(text, "it is not valid JSON"), 0))


def json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """The value of each line that is not blank, with the line's number from 1. Raises Unreadable."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, _decoded(line, f"line {number} of it is not valid JSON")


def record_of(value: Any) -> str:
    """One value as a record by itself."""
    return "\n".join(_leaves("", value, 0))


def _decoded(text: str, fault: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{fault}: {error}") from error


def _records(path: str, value: Any, depth: int) -> Iterator[str]:
    """Objects of a list, and entries of the outermost object; what is simple at one place is a record together."""
    _check_depth(depth)
    if isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for n, each in enumerate(value):
            yield "\n".join(_leaves(f"{path}[{n}]", each, depth + 1))
    elif isinstance(value, dict) and any(isinstance(each, dict | list) for each in value.values()):
        simple = {key: each for key, each in value.items() if not isinstance(each, dict | list)}
        if simple:
            yield "\n".join(_leaves(path, simple, depth))
        for key, each in value.items():
            if key not in simple:
                yield from _records(_member(path, key), each, depth + 1)
    else:
        yield "\n".join(_leaves(path, value, depth))


def _leaves(path: str, value: Any, depth: int) -> Iterator[str]:
    _check_depth(depth)
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _leaves(_member(path, key), each, depth + 1)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for n, each in enumerate(value):
            yield from _leaves(f"{path}[{n}]", each, depth + 1)
    elif isinstance(value, list) and value:
        yield _line(path, ", ".join(_shown(each) for each in value))
    else:
        yield _line(path, _shown(value))


def _line(path: str, value: str) -> str:
    return f"{path}: {value}" if path else value


def _member(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise Unreadable(f"it is nested deeper than {_MAX_DEPTH}")
