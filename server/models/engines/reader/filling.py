"""Fills the fields of a JSON Schema from one message: typed values by rule, names and texts by the span reader.

Work goes in steps: every function that reads or encodes is a generator that yields once a step and returns its result.
"""

import re
from collections.abc import Generator, Iterable, Sequence
from datetime import date
from itertools import combinations, pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from server.models.engines.reader import values
from server.models.engines.reader.fields import Field, leaves, spaced
from server.models.engines.reader.nearness import words
from server.models.engines.reader.phrases import (
    Message,
    cleaned,
    directed,
    identified,
    items,
    labelled,
    located,
    payload,
    query,
    quoted,
    searched,
)
from server.models.engines.reader.spans import Span
from server.models.engines.reader.values import Found
from server.models.question import names


class Reads(Protocol):
    """What the engine can do for it, each call one step."""

    def spans(self, question: str, texts: Sequence[str], most: int) -> list[Span]:
        """The words of `texts` that answer, best first; empty where the span reader is not there."""
        ...

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One unit vector a text."""
        ...

    def answering(self, question: str, texts: Sequence[str]) -> Generator[None, None, list[Span]]:
        """The words of those sentences that surely answer, surest first; yields once a step."""
        ...


Steps = Generator[None, None, Any]

_LEAST = -2.0
"""The score from which on an optional text is taken: likelier there than not."""
_LEAST_REQUIRED = -7.0
"""The same for a text without which nothing can be done: messages are shorter than the passages it was trained on."""
_NEAR_NUMBER = 0.3
_AS_NEAR = 0.1
_SAME_WORD, _NEEDED = 0.5, 0.2
"""What a number is nearer to a field for a word that both have, and to one that has to be filled."""
_NEAR_OPTION, _NEAR_OPTION_REQUIRED = 0.7, 0.45
_AROUND = 3


def filled(wanted: Sequence[Field], text: str, topic: str, reads: Reads, today: date) -> Steps:
    """The values of `wanted` that `text` says, by the names of the fields; `topic` says what the fields are for.

    Every value fits its own field's schema; a field of which nothing is said is left out.
    """
    flat = list(leaves(tuple(wanted)))
    names = frozenset(stem for each in flat for stem in words(f"{spaced(each.name)} {each.described}"))
    message = Message(text, frozenset(words(topic)), names)
    got: dict[int, Any] = {}
    _typed(flat, message, got, today)
    yield from _numbered(flat, message, got, reads)
    yield from _optional(flat, message, got, reads)
    for each in flat:
        if each.kind == "array" and (listed := _listed(each, message)):
            got[id(each)] = listed
    yield from _spoken(flat, message, got, reads)
    return _nested(wanted, got)


def _nested(wanted: Iterable[Field], got: dict[int, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for each in wanted:
        if each.kind == "object":
            if inner := _nested(each.inner, got):
                told[each.name] = inner
        elif id(each) in got:
            told[each.name] = got[id(each)]
        elif each.kind == "const":
            told[each.name] = each.options[0]
    return told


def _put(each: Field, found: Found, value: Any, message: Message, got: dict[int, Any]) -> bool:
    if not each.accepts(value):
        return False
    got[id(each)] = value
    message.take(found)
    return True


# ---- dates, times and addresses -------------------------------------------------------------------------------------


def _typed(flat: Sequence[Field], message: Message, got: dict[int, Any], today: date) -> None:
    for each in flat:
        for found in message.left(typed(each, message.text)):
            value = written(each, str(found.value), today)
            if value is not None and _put(each, found, value, message, got):
                break


def typed(each: Field, text: str) -> list[Found]:
    """What in `text` can be the value of a field of a kind that is known by its form."""
    match each.kind:
        case "date":
            return values.dates(text)
        case "time":
            return values.times(text)
        case "moment":
            return sorted(values.moments(text))
        case "email" | "url" | "host" | "phone":
            return values.addresses(text, each.kind)
        case _:
            return []


def written(each: Field, said: str, today: date) -> str | None:
    """`said` in the form that the field wants; None where it cannot be read so."""
    if not each.iso or each.kind in ("email", "url", "host", "phone"):
        return said
    if each.kind == "date":
        return values.iso_date(said, today)
    if each.kind == "time":
        clock = values.iso_time(said)
        return f"{clock}:00Z" if clock and each.schema.get("format") == "time" else clock
    day = values.iso_date(said, today)
    return None if day is None else f"{day}T00:00:00Z"


# ---- numbers --------------------------------------------------------------------------------------------------------


def _numbered(flat: Sequence[Field], message: Message, got: dict[int, Any], reads: Reads) -> Steps:
    """Numbers to the fields whose words are nearest to what stands around each; best pairs first."""
    asked = [each for each in flat if each.kind in ("integer", "number")]
    found = message.left(values.numbers(message.text))
    if not asked or not found:
        return None
    around = [_around(message.text, each) for each in found]
    meaning = reads.vectors([*(each.words for each in asked), *around])
    yield
    near = meaning[: len(asked)] @ meaning[len(asked) :].T
    scarce = len(found) <= sum(each.required for each in asked)
    for row, each in enumerate(asked):
        stems = set(words(each.words)) - message.topic
        if scarce and not each.required:
            near[row] = 0.0  # nothing is left for it, unless the words say so
        near[row] += _NEEDED * each.required
        for column, context in enumerate(around):
            near[row, column] += _SAME_WORD * bool(stems & set(words(context)))
            near[row, column] += _SAME_WORD * ("year" in stems and bool(_YEAR.fullmatch(str(found[column].value))))
    for row, column in _matched(near, asked, found).items():
        _put(asked[row], found[column], found[column].value, message, got)
    return None


def _matched(near: NDArray[np.float32], asked: Sequence[Field], found: Sequence[Found]) -> dict[int, int]:
    """For each field, by its place, the place of its number; where two could as well change, they keep their order."""
    told: dict[int, int] = {}
    for row, column in sorted(np.ndindex(*near.shape), key=lambda pair: -near[pair]):
        sure = near[row, column] >= _NEAR_NUMBER or asked[row].required
        if sure and row not in told and column not in told.values() and asked[row].accepts(found[column].value):
            told[row] = column
    for one, other in combinations(sorted(told), 2):
        first, second = told[one], told[other]
        gained = near[one, first] + near[other, second] - near[one, second] - near[other, first]
        fit = asked[one].accepts(found[second].value) and asked[other].accepts(found[first].value)
        if first > second and gained < _AS_NEAR and fit:
            told[one], told[other] = second, first
    return told


def _around(text: str, found: Found) -> str:
    before = text[: found.start].split()[-_AROUND:]
    after = re.split(r"[,.;?!]\s|\b(?:and|at|on|for|in|to)\s", text[found.end :], maxsplit=1)[0].split()[:_AROUND]
    told = " ".join([*before, text[found.start : found.end], *after])
    return _SIGNS.sub(lambda sign: f" {_SIGN_WORDS[sign[0]]} ", told)


_YEAR = re.compile(r"(?:19|20)\d\d")
_SIGN_WORDS = {"%": "percent", "$": "dollars", "€": "euros", "£": "pounds", "°": "degrees"}
_SIGNS = re.compile("[%$€£°]")


# ---- choices and switches -------------------------------------------------------------------------------------------


def _optional(flat: Sequence[Field], message: Message, got: dict[int, Any], reads: Reads) -> Steps:
    for each in flat:
        if each.kind == "boolean":
            named = set(words(spaced(each.name))) - _VAGUE or set(words(each.words)) - message.topic - _VAGUE
            said = values.switched(message.text, named)
            said = values.agreed(message.text) if said is None and each.required else said
            if said is not None and each.accepts(said):
                got[id(each)] = said
        elif each.kind == "enum" and (value := (yield from option(each, message, reads))) is not None:
            got[id(each)] = value
    return None


_SWITCHING = "whether true false include enable set only also want use make show should flag if"
_VAGUE = frozenset(words(_SWITCHING))
"""What descriptions of switches say besides what is switched."""


def option(each: Field, message: Message, reads: Reads) -> Steps:
    """The one of a field's options that the message says, or that some of its words are near to; None where none is."""
    named = {str(value): value for value in each.options}
    said = message.left(values.chosen(message.text, list(named)))
    if said:
        message.take(said[0])
        return named[str(said[0].value)]
    texts = [value for value in named if re.search(r"[^\W\d]", value)]
    pieces = _pieces(message)
    if not texts or not pieces:
        return None
    meaning = reads.vectors([*(value.replace("_", " ") for value in texts), *pieces])
    yield
    near = (meaning[: len(texts)] @ meaning[len(texts) :].T).max(axis=1)
    best = int(near.argmax())
    least = _NEAR_OPTION_REQUIRED if each.required and not each.nullable else _NEAR_OPTION
    return named[texts[best]] if near[best] >= least else None


def _pieces(message: Message) -> list[str]:
    """Single words and pairs of the message that no field has."""
    said = [match for match in re.finditer(r"[\w'’-]+", message.text) if message.free(match.start(), match.end())]
    single = [match[0] for match in said if words(match[0])]
    pairs = [f"{one[0]} {two[0]}" for one, two in pairwise(said) if words(one[0]) and words(two[0])]
    return [*single, *pairs][:64]


# ---- texts ----------------------------------------------------------------------------------------------------------


def _spoken(flat: Sequence[Field], message: Message, got: dict[int, Any], reads: Reads) -> Steps:
    """Texts: what is quoted, what a direction or a colon points at, and what the reader finds."""
    asked = [each for each in flat if each.kind == "string" or (each.kind in ("date", "time") and not each.iso)]
    asked = [each for each in asked if id(each) not in got]
    lists = [each for each in flat if id(each) not in got and each.kind == "array" and _of_texts(each)]
    for rule in (quoted, located, identified, directed, labelled, searched, payload):
        for each in asked:
            if id(each) not in got and (found := rule(each, message)) is not None:
                _put(each, found, found.value, message, got)
    yield from _read([*asked, *lists], message, got, reads)


def _read(asked: Sequence[Field], message: Message, got: dict[int, Any], reads: Reads) -> Steps:
    """What the reader finds, the surest answers of all fields first."""
    read: list[tuple[float, Field, Found]] = []
    for each in asked:
        if id(each) in got:
            continue
        spans = reads.spans(each.question, [message.text], 4)
        yield
        least = _LEAST_REQUIRED if each.required and not each.nullable else _LEAST
        bare = ((span.score, cleaned(message.text, span)) for span in spans if span.score >= least)
        read += [(score, each, found) for score, found in bare if found is not None]
    for _, each, found in sorted(read, key=lambda one: -one[0]):
        free = None if id(each) in got else message.clipped(found)
        value = None if free is None else message.peeled(free, frozenset(words(spaced(each.name))))
        if value is None:
            continue
        if each.kind == "array":
            told = _fitting(each, each.inner[0], items(message.text, value.start, value.end, message.taken))
            if told is not None:
                _put(each, value, told, message, got)
        else:
            _put(each, value, value.value, message, got)
    _only_name(asked, message, got)
    for each in asked:
        if each.required and id(each) not in got and (whole := query(each, message)) is not None:
            _put(each, whole, whole.value, message, got)


def _only_name(asked: Sequence[Field], message: Message, got: dict[int, Any]) -> None:
    """The one name that is left to the one required text that nothing was found for."""
    needed = [each for each in asked if each.required and id(each) not in got and each.kind == "string"]
    found = [Found(start, end, message.text[start:end]) for start, end in _with_states(message.text)]
    free = [value for one in message.left(found) if (value := message.peeled(one)) is not None]
    if len(needed) == len(free) == 1:
        _put(needed[0], free[0], free[0].value, message, got)


def _with_states(text: str) -> list[tuple[int, int]]:
    """Names, each with the two letters of a state behind it: San Francisco, CA."""
    joined: list[tuple[int, int]] = []
    for start, end in names(text):
        state = re.fullmatch(r"[A-Z]{2}", text[start:end])
        if state and joined and re.fullmatch(r",\s*", text[joined[-1][1] : start]):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


# ---- lists ----------------------------------------------------------------------------------------------------------


def _of_texts(each: Field) -> bool:
    return bool(each.inner) and each.inner[0].kind not in ("object", "array", "integer", "number", "boolean", "enum")


def _listed(each: Field, message: Message) -> list[Any] | None:
    """The items of an array that are known by their form: choices, numbers, addresses, what is quoted."""
    item = each.inner[0] if each.inner else None
    if item is None or item.kind in ("object", "array"):
        return None
    if item.kind == "enum":
        named = {str(value): value for value in item.options}
        return _fitting(each, item, [named[str(one.value)] for one in values.chosen(message.text, list(named))])
    if item.kind in ("integer", "number"):
        found = message.left(values.numbers(message.text))
    else:
        found = message.left(typed(item, message.text)) or message.left(values.quotations(message.text))
    told = _fitting(each, item, [one.value for one in found])
    for one in found if told else ():
        message.take(one)
    return told


def _fitting(each: Field, item: Field, found: Sequence[Any]) -> list[Any] | None:
    told = [value for value in dict.fromkeys(found) if item.accepts(value)]
    return told if told and each.accepts(told) else None
