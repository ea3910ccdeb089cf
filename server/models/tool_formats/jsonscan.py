"""Walks a JSON object that arrives in pieces and tells its members as they come (RFC 8259, strictly)."""

import re
from enum import Enum

import msgspec

_SPACE = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*+')
_PART_OF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_IN_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_SCALAR = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")


class Key(msgspec.Struct, frozen=True):
    """A key of the outer object, `text[start:end]` with its quotes."""

    start: int
    end: int


class Begin(msgspec.Struct, frozen=True):
    """A value of the outer object begins at `start`."""

    start: int


class End(msgspec.Struct, frozen=True):
    """That value is `text[start:end]`."""

    start: int
    end: int


Member = Key | Begin | End


class _Expect(Enum):
    VALUE = "a value"
    VALUE_OR_CLOSE = "a value or ]"
    KEY = "a key"
    KEY_OR_CLOSE = "a key or }"
    COLON = ":"
    NEXT = ", or a closing bracket"


class JsonScanner:
    """`at` is how far the text is known to be good; `done` once the object is closed, `bad` at a fault, which is `at`.

    An escape, number or word that is not complete yet lies beyond `at`.
    """

    def __init__(self) -> None:
        self.at = 0
        self.done = False
        self.bad = False
        self._stack: list[str] = []
        self._expect = _Expect.VALUE
        self._string: int | None = None
        self._value = 0
        self._members: list[Member] = []

    def scan(self, text: str) -> list[Member]:
        """Walk on. `text` is everything so far, from the `{` on; returns the outer members met since last time."""
        while not (self.done or self.bad):
            if not (self._in_string(text) if self._string is not None else self._outside(text)):
                break
        members, self._members = self._members, []
        return members

    def _in_string(self, text: str) -> bool:
        end = _matched(_IN_STRING, text, self.at)
        self.at = end
        if end == len(text):
            return False
        if text[end] == '"':
            start, self._string = self._string, None
            assert start is not None
            self.at = end + 1
            self._string_read(start)
        elif _PART_OF_ESCAPE.match(text, end):
            return False
        else:
            self.bad = True
        return True

    def _string_read(self, start: int) -> None:
        if self._expect in (_Expect.KEY, _Expect.KEY_OR_CLOSE):
            if len(self._stack) == 1:
                self._members.append(Key(start, self.at))
            self._expect = _Expect.COLON
        else:
            self._value_read()

    def _outside(self, text: str) -> bool:
        self.at = _matched(_SPACE, text, self.at)
        if self.at == len(text):
            return False
        char = text[self.at]
        match self._expect:
            case _Expect.KEY | _Expect.KEY_OR_CLOSE:
                return self._key(char)
            case _Expect.COLON:
                return self._pass(char == ":", _Expect.VALUE)
            case _Expect.NEXT:
                return self._next(char)
            case _:
                return self._begin(text, char)

    def _key(self, char: str) -> bool:
        if char == '"':
            self._string = self.at
            self.at += 1
            return True
        return self._close(char) if self._expect is _Expect.KEY_OR_CLOSE else self._pass(False, self._expect)

    def _next(self, char: str) -> bool:
        if char == ",":
            return self._pass(True, _Expect.KEY if self._stack[-1] == "}" else _Expect.VALUE)
        return self._close(char)

    def _begin(self, text: str, char: str) -> bool:
        if char == "]" and self._expect is _Expect.VALUE_OR_CLOSE:
            return self._close(char)
        if not self._stack and char != "{":
            return self._pass(False, self._expect)
        scalar = 0
        if char not in '{["':
            scalar = _matched(_IN_SCALAR, text, self.at)
            if scalar == len(text):
                return False
            if not _SCALAR.fullmatch(text, self.at, scalar):
                return self._pass(False, self._expect)
        if len(self._stack) == 1:
            self._value = self.at
            self._members.append(Begin(self.at))
        if scalar:
            self.at = scalar
            self._value_read()
        elif char == '"':
            self._string = self.at
            self.at += 1
        else:
            self._stack.append("}" if char == "{" else "]")
            self._pass(True, _Expect.KEY_OR_CLOSE if char == "{" else _Expect.VALUE_OR_CLOSE)
        return True

    def _close(self, char: str) -> bool:
        if char != self._stack[-1]:
            return self._pass(False, self._expect)
        self._stack.pop()
        self.at += 1
        if self._stack:
            self._value_read()
        else:
            self.done = True
        return True

    def _value_read(self) -> None:
        if len(self._stack) == 1:
            self._members.append(End(self._value, self.at))
        self._expect = _Expect.NEXT

    def _pass(self, good: bool, expect: _Expect) -> bool:
        """Step over one character, if it is the one that was expected."""
        if good:
            self.at += 1
            self._expect = expect
        else:
            self.bad = True
        return True


def _matched(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where a pattern that matches the empty text too stops matching."""
    found = pattern.match(text, at)
    assert found is not None
    return found.end()
