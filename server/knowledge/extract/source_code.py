"""Source code: its definitions as headings, told by how lines begin and how far they are indented. Parses nothing.

Strings and comments are blanked before lines are looked at, so that what they say is never taken for a definition.
What is indented as nobody indents code loses headings, never text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from server.knowledge.outline import Block, Kind

_NAME = r"(?P<name>[A-Za-z_$][\w$]*)"
_C_STRINGS = r"""/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])'"""
_JS_STRINGS = r"""/\*.*?(?:\*/|\Z)|//[^\n]*|"(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?|`(?:\\.|[^`\\])*+`?"""
_PY_STRINGS = (
    r'''"""(?:\\.|[^\\])*?(?:"""|\Z)|\'\'\'(?:\\.|[^\\])*?(?:\'\'\'|\Z)|'''
    r""""(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?|\#[^\n]*"""
)
_HASH_STRINGS = r""""(?:\\.|[^"\\])*+"?|'[^']*+'?|(?<![\w$&])\#[^\n]*"""
_SQL_STRINGS = r"""/\*.*?(?:\*/|\Z)|--[^\n]*|'[^']*+'?"""
_NOT_NAMES = (
    r"(?!(?:if|for|while|switch|catch|return|else|do|function|new|await|throw|sizeof|typeof|with|synchronized)\b)"
)


@dataclass(frozen=True)
class _Language:
    """`outer` begins what definitions may lie in, `inner` what holds none; both have a group `name`."""

    strings: re.Pattern[str]
    outer: re.Pattern[str]
    inner: re.Pattern[str] | None = None


def _language(strings: str, outer: str, inner: str = "") -> _Language:
    return _Language(re.compile(strings, re.DOTALL), re.compile(outer), re.compile(inner) if inner else None)


_PYTHON = _language(_PY_STRINGS, rf"\s*class\s+{_NAME}", rf"\s*(?:async\s+)?def\s+{_NAME}")
_SCRIPT = _language(
    _JS_STRINGS,
    rf"\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:abstract\s+)?(?:class|interface|namespace|enum)\s+{_NAME}",
    r"\s*(?:export\s+)?(?:default\s+)?(?:declare\s+)?(?:"
    rf"(?:async\s+)?function\s*\*?\s*{_NAME}"
    r"|type\s+(?P<name2>[\w$]+)(?:<[^=]*>)?\s*="
    r"|(?:const|let|var)\s+(?P<name3>[\w$]+)[^=\n]*=\s*(?:async\s*)?(?:function\b|\([^)]*\)[^=\n]*=>|[\w$]+\s*=>|\([^)]*$)"
    r"|(?<=\s)(?:(?:public|private|protected|static|readonly|override|async|get|set)\s+)*\*?\s*"
    rf"{_NOT_NAMES}(?P<name4>\#?[\w$]+)\s*(?:<[^>(]*>)?\([^;]*\{{\s*$)",
)
_GO = _language(
    _JS_STRINGS,
    r"(?!)",
    rf"(?:func\s+(?:\([^)]*\)\s*)?{_NAME}|type\s+(?P<name2>\w+)\s)",
)
_RUST = _language(
    _C_STRINGS,
    rf"\s*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:trait|mod|struct|enum|union)\s+{_NAME}"
    r"|\s*(?:unsafe\s+)?(?P<name2>impl\b[^{\n]*)",
    rf"\s*(?:pub(?:\([^)]*\))?\s+)?(?:(?:default|const|async|unsafe|extern|\"[^\"]*\")\s+)*(?:fn|macro_rules!)\s+{_NAME}",
)
_JAVA = _language(
    _C_STRINGS,
    r"\s*(?:(?:public|private|protected|internal|static|final|abstract|sealed|partial|open|data)\s+)*"
    rf"(?:class|interface|enum|record|@interface|object|namespace|struct|trait)\s+{_NAME}",
    rf"\s+{_NOT_NAMES}(?:[\w.<>\[\],?@&]+\s+)+{_NOT_NAMES}{_NAME}\s*\([^;]*$|\s*(?:\w+\s+)*fun\s+(?P<name2>\w+)",
)
_C = _language(
    _C_STRINGS,
    rf"\s*(?:typedef\s+)?(?:class|struct|union|enum(?:\s+class)?|namespace)\s+{_NAME}[^;()]*$",
    rf"\s*{_NOT_NAMES}(?:[\w:<>,~\[\]]+[\s*&]+)+{_NOT_NAMES}(?P<name2>~?[A-Za-z_][\w:~]*)\s*\([^;]*$",
)
_SHELL = _language(_HASH_STRINGS, r"(?!)", r"\s*(?:function\s+(?P<name>[\w:.-]+)|(?P<name2>[\w:.-]+)\s*\(\s*\))")
_SQL = _language(
    _SQL_STRINGS,
    r"(?!)",
    r"(?i:\s*create\s+(?:or\s+replace\s+)?(?:\w+\s+){0,3}?(?:table|view|function|procedure|trigger|index|type|schema)\s+"
    r"(?:if\s+not\s+exists\s+)?(?P<name>[\w.\"`]+))",
)
_YAML = _language(r"(?!)", r"(?P<name>[A-Za-z_][\w.-]*)\s*:(?:\s|$)")
_INI = _language(r"(?!)", r"\s*\[+(?P<name>[^\]\n]+)\]")
_RUBY = _language(_HASH_STRINGS, r"\s*(?:class|module)\s+(?P<name>[\w:]+)", r"\s*def\s+(?P<name>[\w.?!=]+)")
_PHP = _language(
    _JS_STRINGS,
    rf"\s*(?:(?:abstract|final)\s+)*(?:class|interface|trait|enum)\s+{_NAME}",
    rf"\s*(?:(?:public|private|protected|static|final|abstract)\s+)*function\s+&?{_NAME}",
)

LANGUAGES: Mapping[str, _Language] = {
    **dict.fromkeys((".py", ".pyi", ".pyw"), _PYTHON),
    **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx", ".ts", ".mts", ".cts", ".tsx"), _SCRIPT),
    ".go": _GO,
    ".rs": _RUST,
    **dict.fromkeys((".java", ".kt", ".kts", ".scala", ".cs"), _JAVA),
    **dict.fromkeys((".c", ".h", ".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx"), _C),
    **dict.fromkeys((".sh", ".bash", ".zsh"), _SHELL),
    ".sql": _SQL,
    **dict.fromkeys((".yaml", ".yml"), _YAML),
    **dict.fromkeys((".toml", ".ini", ".cfg", ".conf"), _INI),
    ".rb": _RUBY,
    ".php": _PHP,
}
"""By the ending of a file's name."""

_CLOSING = re.compile(r"[)\]}{]|(?:else|elif|except|finally|catch|end|fi|done|esac)\b|[A-Za-z_ ]+:\s*$|#\s*\w|=>|->|:")
"""A line that begins so, where a definition begins, goes on with it: the end of its head, its body, a label."""
_LEADING = re.compile(r"\s*(?:@|#|//|/\*|\*|--|\[\w)")
"""A comment, a decorator or an attribute: right above a definition it belongs to it."""


_MAX_LINE = 500
"""No definition begins in a line this long; what does is generated."""


@dataclass(frozen=True)
class _Open:
    """A definition that has not ended; one that is not `outer` holds none."""

    indent: int
    is_outer: bool


def outline(text: str, suffix: str) -> tuple[Block, ...]:
    """The definitions of `text` as headings, in one another as they lie; between them lines up to a blank one."""
    language = LANGUAGES[suffix]
    masked = language.strings.sub(_blank, text)
    return tuple(_blocks(text, masked, language))


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", found[0])


def _blocks(text: str, masked: str, language: _Language) -> Iterator[Block]:
    run = _Run()
    stack: list[_Open] = []
    at = 0
    for code in masked.split("\n"):
        start, end = at, min(len(text), at + len(code) + 1)
        at = end
        line = text[start:end]
        if not line.strip():
            yield from run.ended()
            continue
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        found = _definition(code, language, stack, indent) if code.strip() else None
        ends = code.strip() and stack and indent <= stack[-1].indent and not _CLOSING.match(code.strip())
        if found is not None or ends:
            lead = run.lead(start)
            yield from run.ended(lead)
            while stack and stack[-1].indent >= indent:
                stack.pop()
            # Without characters of its own: a definition of one line is text too.
            yield Block(Kind.HEADING, lead, lead, len(stack) + 1, found[0] if found else "")
            run.start = lead
            if found is not None:
                stack.append(_Open(indent, found[1]))
                run.add(start, end, is_lead=False)
                continue
        run.add(start, end, is_lead=_LEADING.match(line) is not None)
    yield from run.ended()


class _Run:
    """Lines without a blank one between them. The last of them may be comments that belong to what follows."""

    def __init__(self) -> None:
        self.start: int | None = None
        self._end = 0
        self._lead: int | None = None

    def add(self, start: int, end: int, *, is_lead: bool) -> None:
        self.start = start if self.start is None else self.start
        self._end = end
        self._lead = (start if self._lead is None else self._lead) if is_lead else None

    def lead(self, start: int) -> int:
        """Where what begins at `start` begins with the comments above it."""
        return start if self._lead is None else self._lead

    def ended(self, at: int | None = None) -> Iterator[Block]:
        """The block of its lines, up to `at`."""
        end = self._end if at is None else min(at, self._end)
        if self.start is not None and self.start < end:
            yield Block(Kind.LINES, self.start, end)
        self.start = self._lead = None


def _definition(code: str, language: _Language, stack: list[_Open], indent: int) -> tuple[str, bool] | None:
    """The name of what a line begins and whether definitions may lie in it; None within what holds none."""
    if len(code) > _MAX_LINE:
        return None
    above = next((each for each in reversed(stack) if each.indent < indent), None)
    if (above is None and indent > 8) or (above is not None and not above.is_outer):
        return None
    for pattern, is_outer in ((language.outer, True), (language.inner, False)):
        found = pattern.match(code) if pattern is not None else None
        if found is not None:
            name = next(value for value in found.groupdict().values() if value)
            return " ".join(name.split()), is_outer
    return None
