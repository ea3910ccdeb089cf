"""GBNF, the grammars of llama.cpp, written as Lark, which engines follow; knows the two notations and no engine.

GBNF is described in llama.cpp's grammars/README.md. A character class stands for one character there, wherever it is
used, so it becomes a terminal of its own: Lark's terminals take all they can, and `[a-z]* "z"` would never end.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from server.models.tool_formats.lark import quoted

LONGEST = 2**16
"""Characters: it is read between other requests, and what is longer would hold them up."""
_DEEPEST = 64

_token = re.compile(
    r"""(?P<blank>[ \t]+|\#[^\r\n]*)
    | (?P<line>[\r\n]+)
    | (?P<literal>"(?:[^"\\]|\\.)*")
    | (?P<class>\[(?:[^\]\\]|\\.)*\])
    | (?P<defined>::=)
    | (?P<name>[A-Za-z0-9_-]+)
    | (?P<times>[*+?]|\{\s*\d{1,9}\s*(?:,\s*(?:\d{1,9}\s*)?)?\})
    | (?P<mark>[|().])""",
    re.VERBOSE | re.DOTALL,
)
_character = re.compile(r"\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}|\\U[0-9A-Fa-f]{8}|\\.|[^\\]", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_END = ("", "the end")


def as_lark(text: str) -> str:
    """The grammar with its rule `root` as `start`. Raises ValueError, saying what is wrong and in which line."""
    if len(text) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} characters")
    return _Reader(list(_tokens(text))).grammar()


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, line) of each."""
    at, line = 0, 1
    while at < len(text):
        found = _token.match(text, at)
        if found is None:
            raise ValueError(f"line {line}: {text[at : at + 20]!r} is no GBNF")
        if found.lastgroup != "blank":
            yield found.lastgroup or "", found[0], line
        line += found[0].count("\n")
        at = found.end()


@dataclass
class _Reader:
    """Goes through the tokens once. Rules get new names, so that no name of a grammar means something in Lark."""

    tokens: list[tuple[str, str, int]]
    at: int = 0
    depth: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    """The line in which each name was used first."""

    def grammar(self) -> str:
        rules: dict[str, str] = {}
        self._lines()
        while self.at < len(self.tokens):
            name = self._take("name")
            if name in rules:
                raise self._fault(f"the rule `{name}` stands twice")
            self._take("defined")
            self._lines()
            rules[name] = self._alternatives()
            if self._kind() not in ("line", ""):
                raise self._fault(f"{self._text()!r} is not expected here")
            self._lines()
        for name, line in self.used.items():
            if name not in rules:
                raise ValueError(f"line {line}: there is no rule `{name}`")
        if "root" not in rules:
            raise ValueError("it has no rule `root`")
        return "".join(f"{self._named(name)}: {body}\n" for name, body in rules.items())

    def _alternatives(self) -> str:
        found = [self._sequence()]
        while self._more():
            self.at += 1
            self._lines()
            found.append(self._sequence())
        return " | ".join(found)

    def _more(self) -> bool:
        """Whether another alternative follows; it may stand in a line of its own."""
        before = self.at
        self._lines()
        if self._text() == "|":
            return True
        if not self.depth:
            self.at = before
        return False

    def _sequence(self) -> str:
        found: list[str] = []
        while (element := self._element()) is not None:
            while self._kind() == "times":
                element = f"({element}){self._text()}"
                self.at += 1
            found.append(element)
            if self.depth:
                self._lines()
        return " ".join(found) or '""'

    def _element(self) -> str | None:
        kind, text = self._kind(), self._text()
        if kind == "literal":
            element = quoted("".join(map(self._decoded, _character.findall(text[1:-1]))))
        elif kind == "class":
            element = self._class(text)
        elif kind == "name":
            self.used.setdefault(text, self.tokens[self.at][2])
            element = self._named(text)
        elif text == ".":
            element = "/(?s:.)/"
        elif text == "(":
            return self._group()
        else:
            return None
        self.at += 1
        return element

    def _group(self) -> str:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise self._fault("it is nested too deeply")
        self.at += 1
        self._lines()
        inner = self._alternatives()
        if self._text() != ")":
            raise self._fault("a bracket is not closed")
        self.at += 1
        self.depth -= 1
        return f"({inner})"

    def _class(self, text: str) -> str:
        """One character of a class, each written by its number: no sign of it then means anything to Lark."""
        inner = text[1:-1]
        negated = inner.startswith("^")
        found = _character.findall(inner[negated:])
        if not found:
            raise self._fault("a class of characters is empty")
        said, place = [], 0
        while place < len(found):
            ranges = place + 2 < len(found) and found[place + 1] == "-"  # at an end a hyphen is a character
            said.append(
                "-".join(f"\\x{{{ord(self._decoded(each)):x}}}" for each in found[place : place + 3 : 2][: 1 + ranges])
            )
            place += 3 if ranges else 1
        return f"/[{'^' if negated else ''}{''.join(said)}]/"

    def _decoded(self, each: str) -> str:
        """One character as it is written."""
        if len(each) == 1:
            return each
        if len(each) == 2:
            if each[1] not in _ESCAPES:
                raise self._fault(f"{each} stands for nothing")
            return _ESCAPES[each[1]]
        number = int(each[2:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise self._fault(f"{each} is no character")
        return chr(number)

    def _named(self, name: str) -> str:
        return "start" if name == "root" else f"rule_{self.numbers.setdefault(name, len(self.numbers))}"

    # ---- where it is ------------------------------------------------------------------------------------------------

    def _kind(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else _END[0]

    def _text(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else _END[1]

    def _lines(self) -> None:
        while self._kind() == "line":
            self.at += 1

    def _take(self, kind: str) -> str:
        if self._kind() != kind:
            wanted = "the name of a rule" if kind == "name" else "::="
            raise self._fault(f"{self._text()!r} stands where {wanted} should")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def _fault(self, why: str) -> ValueError:
        line = self.tokens[min(self.at, len(self.tokens) - 1)][2] if self.tokens else 1
        return ValueError(f"line {line}: {why}")
