"""The frozen, strict base of every section, and the kinds of value a recipe is written in; knows no section."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    Strict,
    WithJsonSchema,
    WrapSerializer,
)
from pydantic_core import PydanticCustomError, PydanticKnownError

PLACEHOLDER = r"\$\{"
"""What a JSON Schema finds in a text whose variables are not known yet."""


class Outside(str):
    """Text that a variable, a file or the command line gave: it may mean a number, and no message repeats it."""


class SecretFile(Outside):
    """Text read from a secret file: only keys that hide their value may hold it."""


@dataclass(frozen=True)
class Origin:
    """Where a recipe comes from; the context of its validation.

    `overrides` are those of the command line, by dotted keys; `secrets` the files its ${file:...} were read from.
    """

    file: Path
    overrides: Mapping[str, object] = field(default_factory=dict)
    secrets: tuple[Path, ...] = ()

    @property
    def folder(self) -> Path:
        return self.file.parent


def wrong(message: str, suggestion: str | None = None) -> PydanticCustomError:
    """A fault of one value, for a validator to raise."""
    return PydanticCustomError("recipe", "{message}", {"message": message, "suggestion": suggestion})


def shown(value: object) -> str:
    """`value` as a message may show it."""
    if not isinstance(value, str) or isinstance(value, Outside):
        return "this value"
    return json.dumps(value if len(value) <= 80 else value[:77] + "...", ensure_ascii=False)


class Section(BaseModel):
    """A part of a recipe: frozen, hashable, without keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


_K = TypeVar("_K")
_V = TypeVar("_V")


class Entries(Mapping[_K, _V]):
    """A mapping that never changes: hashable, equal to any mapping with the same entries."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Mapping[_K, _V]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, key: _K) -> _V:
        return self._entries[key]

    def __iter__(self) -> Iterator[_K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __hash__(self) -> int:
        return hash(frozenset(self._entries.items()))

    def __repr__(self) -> str:
        return repr(self._entries)


FROZEN = (AfterValidator(Entries), WrapSerializer(lambda value, dump: dump(dict(value))))
"""Annotations that freeze a Mapping: `Annotated[Mapping[str, X], *FROZEN]`."""


def text_of(value: object) -> str:
    """`value` as text that is still Outside where it was; pydantic's own check of text makes it plain, and shown."""
    if not isinstance(value, str):
        raise PydanticKnownError("string_type")
    return value


# ---- names ----------------------------------------------------------------------------------------------------------


def _matching(pattern: str, meaning: str, longest: int = 256) -> tuple[Any, ...]:
    """A text that fits `pattern` as a whole."""
    compiled = re.compile(pattern)

    def check(value: object) -> str:
        text = text_of(value)
        if len(text) > longest or not compiled.fullmatch(text):
            raise wrong(f"{shown(text)} is not {meaning}")
        return str(text)

    return PlainValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{pattern}$|{PLACEHOLDER}"})


Name = Annotated[
    str,
    *_matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        'a name: letters, digits, ".", "_" and "-", at most 64, the first a letter or digit',
    ),
]
Alias = Annotated[
    str,
    *_matching(
        r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}\*?",
        'a model id: letters, digits and ". _ - : /", at most 128, the first a letter or digit; a * may end it',
    ),
]
Attribute = Annotated[
    str,
    *_matching(r"[A-Za-z_][A-Za-z0-9_]{0,63}", "an attribute's name: letters, digits and _, the first no digit"),
]
ToolName = Annotated[
    str,
    *_matching(
        r"[A-Za-z](_?[A-Za-z0-9-])*",
        'a tool\'s name: letters, digits, "-" and single "_" between them, at most 64, the first a letter',
        longest=64,
    ),
]
Reference = Annotated[
    str,
    *_matching(
        r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*",
        "module:name, such as my_tools:clock",
    ),
]
EntryPoint = Annotated[
    str,
    *_matching(
        r"[A-Za-z_][A-Za-z0-9_.-]*(:[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*)?",
        "module:function, such as my_tools:clock, or the name of an entry point",
    ),
]
VariableName = Annotated[
    str, *_matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable: letters, digits and _")
]
HeaderName = Annotated[str, *_matching(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", "the name of a header")]
WebOrigin = Annotated[
    str,
    *_matching(
        r"[a-z][a-z0-9+.-]*://([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?",
        "an origin such as https://chat.example.com (scheme, host, port; no path, no *)",
    ),
]
HostName = Annotated[
    str,
    *_matching(
        r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*",
        "the name of a host such as hearth.example.com (no scheme, no port, no *)",
    ),
]


# ---- numbers --------------------------------------------------------------------------------------------------------


def _number(value: object) -> object:
    """What a variable says may be a number: read it as one, where it is."""
    if isinstance(value, Outside) and re.fullmatch(r"\s*[-+]?[0-9]{1,18}\s*", value):
        return int(value)
    if isinstance(value, Outside) and re.fullmatch(r"\s*[-+]?[0-9]{1,18}\.[0-9]{0,18}\s*", value):
        return float(value)
    return value


Whole = Annotated[int, Field(ge=0), Strict(), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1), Strict(), BeforeValidator(_number)]
Hits = Annotated[int, Field(ge=1, le=1000), Strict(), BeforeValidator(_number)]
Guesses = Annotated[int, Field(ge=1, le=16), Strict(), BeforeValidator(_number)]


def _flag(value: object) -> object:
    """What a variable says may be yes or no: read it as one, where it is."""
    if isinstance(value, Outside) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    return value


Flag = Annotated[bool, Strict(), BeforeValidator(_flag)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), Strict(), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Strict(), BeforeValidator(_number)]
Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False), Strict(), BeforeValidator(_number)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False), Strict(), BeforeValidator(_number)]
Repetition = Annotated[float, Field(ge=0.01, le=10, allow_inf_nan=False), Strict(), BeforeValidator(_number)]
Rounds = Annotated[int, Field(ge=1, le=100), Strict(), BeforeValidator(_number)]


# ---- units ----------------------------------------------------------------------------------------------------------

_UNITS = {"ms": timedelta(milliseconds=1), "s": timedelta(seconds=1), "m": timedelta(minutes=1)}
_UNITS |= {"h": timedelta(hours=1), "d": timedelta(days=1)}
_TIME = r"([0-9]{1,7}(ms|s|m|h|d))+"


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(_number(value), int | float) and not isinstance(value, bool):
        guess = None if isinstance(value, Outside) else f"{value}s"
        raise wrong("a duration has a unit: ms, s, m, h or d", guess)
    if not isinstance(value, str) or not re.fullmatch(_TIME, value):
        raise wrong(f"{shown(value)} is not a duration such as 30s, 5m, 1h30m or 250ms")
    parts = re.findall(r"([0-9]+)(ms|s|m|h|d)", value)
    total = sum((int(count) * _UNITS[unit] for count, unit in parts), timedelta())
    if not total:
        raise wrong("a duration is longer than nothing")
    return total


def _duration_text(value: timedelta) -> str:
    parts, rest = [], value
    for unit in ("d", "h", "m", "s", "ms"):
        count, rest = divmod(rest, _UNITS[unit])
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts)


Duration = Annotated[
    timedelta,
    PlainValidator(_duration),
    PlainSerializer(_duration_text),
    WithJsonSchema({"type": "string", "pattern": f"^{_TIME}$|{PLACEHOLDER}"}),
]
"""How long: 30s, 5m, 1h30m, 250ms."""

_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SPACE = r"[0-9]{1,9} ?(B|KB|MB|GB|KiB|MiB|GiB)"


def _size(value: object) -> int:
    value = _number(value)
    if isinstance(value, str):
        value = _size_text(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong("should be a size such as 64MiB, 10MB or 512KiB, or a number of bytes")
    if not 1 <= value <= 2**63 - 1:
        raise wrong("a size is at least one byte")
    return value


def _size_text(text: str) -> int:
    if not re.fullmatch(_SPACE, text):
        by_fold = {unit.casefold(): unit for unit in _BYTES if unit}
        loose = re.fullmatch(r"([0-9]{1,9}) ?([A-Za-z]+)", text)
        unit = by_fold.get(loose[2].casefold()) if loose else None
        guess = f"{loose[1]}{unit}" if loose and unit and not isinstance(text, Outside) else None
        raise wrong(f"{shown(text)} is not a size such as 64MiB, 10MB or 512KiB", guess)
    unit = text.lstrip("0123456789 ")
    return int(text[: -len(unit)]) * _BYTES[unit]


Size = Annotated[
    int,
    PlainValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_SPACE}$|{PLACEHOLDER}"}]}
    ),
]
"""How many bytes: 64MiB, 10MB, 512KiB, or a number."""


# ---- secrets --------------------------------------------------------------------------------------------------------


def _secret(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) < 8:
        raise wrong("a secret has at least 8 characters")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong("a secret is made of visible ASCII characters")
    return value


Secret = Annotated[
    SecretStr,
    AfterValidator(_secret),
    PlainSerializer(lambda value: "***", return_type=str),
    WithJsonSchema({"type": "string", "minLength": 8}),
]
"""A text that is never printed."""
