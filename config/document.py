"""YAML text to plain values that know their lines; knows nothing of recipes.

Built from the C parser's events, so that every key has a line, depth and size are bounded before anything grows, and
plain words keep to YAML 1.2: `no` and `on` are text, `010` is no octal number, `12:30` no count of minutes.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from config.fault import KeyPath

DEEPEST = 32
MOST_VALUES = 20_000

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})(\.[0-9]{0,17})?([eE][-+]?[0-9]{1,3})?")
_WORDS: dict[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}
_CORE_TAGS = {
    None,
    "!",
    *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")),
}


@dataclass(frozen=True)
class Problem:
    """A mistake at the key `path`. Its line is still to be looked up: that of `at`, where it is not that of `path`."""

    path: KeyPath
    message: str
    suggestion: str | None = None
    line: int | None = None
    at: KeyPath | None = None


class Unreadable(Exception):
    """The text as a whole is not a document; carries the one problem that says why."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.problem = Problem((), message, line=line)


@dataclass
class Document:
    """`value` is plain (dict with text keys, list, str, int, float, bool, None); `lines` holds the line of each key.

    Values behind an alias are one object in several places: never change them. Their lines are those of the alias.
    `problems` are mistakes that do not hide the rest; `broken` are the paths where nothing meaningful stands.
    """

    value: object = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[KeyPath] = field(default_factory=set)


def parse(text: str) -> Document:
    """Raises Unreadable for a syntax error, for several documents, and for one too deep or too large."""
    try:
        return _Reading(text).document()
    except yaml.MarkedYAMLError as error:
        raise Unreadable(*_syntax(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable("not valid YAML: control characters are not allowed", line) from None


@dataclass(frozen=True)
class _Anchored:
    """A value that aliases may repeat: how many values it holds, and how many levels."""

    value: object
    size: int
    height: int


class _Reading:
    """One pass over the events of one text."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._result = Document()
        self._anchors: dict[str, _Anchored] = {}
        self._values = 0

    def document(self) -> Document:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._result.value = self._value(self._next(), ())
                break
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise Unreadable("a recipe is one document, a second one starts here", _line(event))
        return self._result

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _value(self, event: yaml.Event, path: KeyPath) -> object:
        self._result.lines.setdefault(path, _line(event))
        before = self._values
        self._grow(1, len(path), event)
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            return self._alias(event, path)
        value = _scalar(event) if isinstance(event, yaml.ScalarEvent) else self._children(event, path)
        if event.tag not in _CORE_TAGS:
            self._broken(path, path, 'tags have no meaning here; put text that begins with "!" in quotes', event)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(value, self._values - before, _height(value))
        return value

    def _children(self, event: yaml.Event, path: KeyPath) -> object:
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)

    def _grow(self, count: int, depth: int, event: yaml.Event) -> None:
        self._values += count
        if self._values > MOST_VALUES:
            raise Unreadable(f"more than {MOST_VALUES} values, aliases counted at their full size", _line(event))
        if depth > DEEPEST:
            raise Unreadable(f"nested more than {DEEPEST} levels deep", _line(event))

    def _alias(self, event: yaml.Event, path: KeyPath) -> object:
        name = event.anchor if isinstance(event, yaml.AliasEvent) else None
        if name is None or name not in self._anchors:
            # The name is kept out of the message: it may be a secret that begins with "*" and lacks its quotes.
            self._broken(path, path, 'an alias without its anchor; put text that begins with "*" in quotes', event)
            return None
        anchored = self._anchors[name]
        self._grow(anchored.size, len(path) + anchored.height, event)
        return anchored.value

    def _sequence(self, path: KeyPath) -> list[object]:
        items: list[object] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items))))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, object]:
        entries: dict[str, object] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            inner = (*path, key)
            if key in entries:
                first = self._result.lines[inner]
                self._problem(path, f'"{key}" is written twice, first on line {first}', event)
            self._result.lines.setdefault(inner, _line(event))
            value = self._value(self._next(), inner)
            entries.setdefault(key, value)
        return entries

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        if isinstance(event, yaml.ScalarEvent):
            if event.value == "<<" and not event.style:
                self._broken((*path, "<<"), path, "merge keys are not supported; write the keys out", event)
            return str(event.value)
        self._value(event, (*path, "?"))
        self._broken((*path, "?"), path, "a key is a name, not a list, a mapping or an alias", event)
        return "?"

    def _problem(self, path: KeyPath, message: str, event: yaml.Event) -> None:
        self._result.problems.append(Problem(path, message, line=_line(event)))

    def _broken(self, broken: KeyPath, path: KeyPath, message: str, event: yaml.Event) -> None:
        self._result.broken.add(broken)
        self._problem(path, message, event)


def _scalar(event: yaml.ScalarEvent) -> object:
    text = str(event.value)
    if event.style:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _height(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + _height(child) for child in inner), default=0)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _syntax(error: yaml.MarkedYAMLError, text: str) -> tuple[str, int]:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return "not valid YAML", 1
    rest = text.split("\n")[mark.line : mark.line + 1]
    tab = bool(rest) and rest[0][mark.column : mark.column + 1] == "\t"
    hint = "; YAML indents with spaces, not tabs" if tab else ""
    return f"not valid YAML: {error.problem}{hint}", int(mark.line) + 1
