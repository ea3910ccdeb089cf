"""Where in a message a text begins and ends: quotations, what "from" and "saying" point at, enumerations."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from server.models.engines.reader import values
from server.models.engines.reader.fields import Field, spaced
from server.models.engines.reader.nearness import words
from server.models.engines.reader.spans import Span
from server.models.engines.reader.values import Found

_QUOTABLE = """
title text message content body note name subject query phrase keyword keywords summary description task reminder
comment caption label term sentence item product expression todo word
"""
_QUOTED = frozenset(_QUOTABLE.split())
"""What people put into quotation marks."""
_SAYABLE = """
text message content body note comment caption reminder task description sentence todo title subject query
"""
_SAID = frozenset(_SAYABLE.split())
"""What people put behind "saying" or a colon."""
_SAYING = re.compile(
    r"(?:\b(?:saying|says|say|that reads|reads|telling (?:him|her|them)|with the (?:text|words|message|note))\b"
    r"(?:\s(?:that|to))?[:,]?|:)\s+(?P<said>.+?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_TO_DO = re.compile(
    r"\b(?:remind(?:er)?|remember|task|to-?do|note)\b(?:\s\w+){0,2}?\s(?:to|about|that|for)\s+(?P<said>.+?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_SEARCHED = frozenset(["query", "q", "question", "search", "keywords"])
"""What is looked for: all that follows, or the whole message, which is a query by itself."""
_SEARCHING = re.compile(
    r"\b(?:search|look|looking|find|google|browse|query|research|check)\b(?:\s+[\w'’-]+){0,5}?\s+"
    r"(?:for|about|on|up)\s+(?P<said>.+?)\s*$",
    re.IGNORECASE | re.DOTALL,
)
_PLACED = frozenset(["path", "file", "filename", "filepath", "directory", "folder"])
_PLACE = re.compile(
    r"(?<![\w/.~])(?:(?:~|\.{1,2})?/[\w./-]*\w/?|\w[\w-]*(?:/[\w.-]*\w)+|\w[\w-]*(?:\.\w+)*\.[a-z]\w{0,4})(?!\w)"
)
"""A path of files: /etc/hosts, src/main.py, notes.txt."""
_NUMBERED = frozenset(["id", "number", "code", "no", "reference"])
_FROM = frozenset(["from", "origin", "source", "start", "departure", "sender", "pickup"])
_TO = frozenset(["to", "destination", "target", "recipient", "arrival", "end", "dropoff"])
_UNTIL = r"(?=\s+(?:from|to|into|on|at|for|by|in|with|until|when|saying|that|about|tomorrow|today|next)\b|[,.;?!:]|$)"
_BOTH = re.compile(rf"\bfrom\s+(?P<from>[^,.;?!]+?)\s+(?:to|into)\s+(?P<to>[^,.;?!]+?){_UNTIL}", re.IGNORECASE)
_EITHER = re.compile(rf"\b(?:(?P<way>from|to|into))\s+(?P<what>[^,.;?!]+?){_UNTIL}", re.IGNORECASE)
_LEADING = re.compile(
    r"^(?:the|a|an|my|for|in|at|on|to|into|of|with|about|named|called|titled|and|or|is|are|some|any|one|"
    r"how (?:many|much)|which|what|please)\s+(?=\S)",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"^(?:please\s+)?(?:put|add|make|get|give|show|set|create|find|take|let)\s+(?=\S)", re.IGNORECASE
)
"""What begins a message and is no part of a value."""
_ITEM_END = re.compile(r"\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or|und|&)\s+|\s*;\s*", re.IGNORECASE)
_VERBS = "is|are|was|were|to|on|in|at|for|will|should|have|has"
_ONE = rf"(?!(?:{_VERBS})\b)[\w'’-]+(?:\s(?!(?:and|or|{_VERBS})\b)[\w'’-]+)?"
"""One of several things that are enumerated."""
_AFTER = re.compile(rf"(?:\s*,\s*(?:(?:and|or)\s+)?{_ONE}|\s+(?:and|or|&)\s+{_ONE})+", re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![\w'’-])(?:{_ONE}(?:\s*,\s*(?:(?:and|or)\s+)?|\s+(?:and|or|&)\s+))+$", re.IGNORECASE)


_TRAILING = re.compile(
    r"[\s,]+(?:(?:at|on|by|for|in|into|until|from|to|with|and|or|of|the|a|an|my|is|are)\b[\s,]*)*$", re.IGNORECASE
)


@dataclass
class Message:
    """A message that is being taken apart; `taken` are the characters that a field has already."""

    text: str
    topic: frozenset[str] = frozenset()
    """Stems of the words that name what is done."""
    named: frozenset[str] = frozenset()
    """Stems of the words that name or describe any field; with those of the topic alone they are no value."""
    taken: list[tuple[int, int]] = field(default_factory=list)

    def take(self, found: Found) -> None:
        self.taken.append((found.start, found.end))

    def free(self, start: int, end: int) -> bool:
        return not any(start < last and first < end for first, last in self.taken)

    def clipped(self, found: Found) -> Found | None:
        """The first part of `found` that no field has; None where there is none."""
        start, end = found.start, found.end
        for first, last in sorted(self.taken):
            if first <= start < last:
                start = last
            elif start < first < end:
                end = len(_TRAILING.sub("", self.text[:first]))
        return trimmed(self.text, start, end) if start < end else None

    def peeled(self, found: Found, own: frozenset[str] = frozenset()) -> Found | None:
        """`found` without the words at its ends that name what is done; None where all name that or a field.

        `own` are the stems of the field's name, which belong to values too: a living room is a room.
        """
        start, end = found.start, found.end
        if set(words(str(found.value))) <= self.topic | self.named:
            return None
        for _ in range(len(str(found.value).split())):
            value = self.text[start:end]
            first, last = re.match(r"\S+\s*", value), re.search(r"\s*\S+$", value)
            if last is not None and self._names(last[0], start + last.start(), own):
                end = start + last.start()
            elif first is not None and self._names(first[0], start, own):
                start += first.end()
            else:
                break
            left = trimmed(self.text, start, end)
            if left is None:
                return None
            start, end = left.start, left.end
        return Found(start, end, self.text[start:end])

    def unlabelled(self, start: int, end: int) -> int:
        """Where `start`:`end` ends without the name of a field behind it, which tells of what follows."""
        last = re.search(r"(?:^|\s)\S+$", self.text[start:end])
        if last is None or not (stems := set(words(last[0]))) or not stems <= self.named:
            return end
        return start + len(_TRAILING.sub("", self.text[start : start + last.start()]))

    def _names(self, word: str, at: int, own: frozenset[str]) -> bool:
        """Whether a word only names what is done; one with a capital inside a sentence is a part of a name."""
        stems = words(word)
        return set(stems) <= self.topic - own and not (at and word.strip()[:1].isupper())

    def left(self, found: Iterable[Found]) -> list[Found]:
        return [each for each in found if self.free(each.start, each.end)]


# ---- rules for texts ------------------------------------------------------------------------------------------------


def _named(each: Field) -> set[str]:
    return set(re.findall(r"[a-z]+", f"{each.words} ".lower().split(".")[0]))


def quoted(each: Field, message: Message) -> Found | None:
    if not _named(each) & _QUOTED:
        return None
    return next(iter(message.left(values.quotations(message.text))), None)


def directed(each: Field, message: Message) -> Found | None:
    """What stands after "from" or "to", for a field that is called an origin or a destination."""
    named = set(re.findall(r"[a-z]+", each.words.split(" ")[0].lower())) | set(re.findall(r"[a-z]+", each.name.lower()))
    for way, known in (("from", _FROM), ("to", _TO)):
        if not named & known:
            continue
        both = [(match.start(way), match.end(way)) for match in _BOTH.finditer(message.text)]
        either = [
            match for match in _EITHER.finditer(message.text) if (match["way"].lower() == "from") == (way == "from")
        ]
        # "to" stands before verbs too: the last one is likelier a place.
        for start, end in [*both, *((match.start("what"), match.end("what")) for match in reversed(either))]:
            found = trimmed(message.text, start, end)
            if found is not None and message.free(found.start, found.end):
                return found
    return None


def located(each: Field, message: Message) -> Found | None:
    """A path, for a field that is called one."""
    if not set(spaced(each.name).split()) & _PLACED:
        return None
    return next(iter(message.left(Found(at.start(), at.end(), at[0]) for at in _PLACE.finditer(message.text))), None)


def identified(each: Field, message: Message) -> Found | None:
    """What has digits and stands behind the field's own words: order 4821, order ID A-17, for an order_id."""
    of, *rest = spaced(each.name).split()
    if not rest or not set(rest) & _NUMBERED:
        return None
    kinds = "|".join(_NUMBERED)
    ways = (
        rf"\b{re.escape(of)}\W{{1,2}}(?:{kinds})\W{{1,3}}(?:is\s+)?(?P<said>[\w-]*\d[\w-]*)",
        rf"\b{re.escape(of)}\W{{1,3}}(?P<said>[\w-]*\d[\w-]*)",
    )
    for way in ways:
        for at in re.finditer(way, message.text, re.IGNORECASE):
            if message.free(at.start("said"), at.end("said")):
                return Found(at.start("said"), at.end("said"), at["said"])
    return None


def labelled(each: Field, message: Message) -> Found | None:
    """What stands behind the field's name, up to another field's or the end: with subject Lunch and body See you."""
    name = re.escape(spaced(each.name))
    pattern = (
        rf"\b(?:with|and|the|a)\s+{name}(?:\s+(?:of|is)\b|\s*[:=])?\s+(?P<said>[^\s,;].*?)\s*(?P<end>$|[,;]|\band\b)"
    )
    if (at := re.search(pattern, message.text, re.IGNORECASE | re.DOTALL)) is None:
        return None
    end = at.end("said")
    for more in re.finditer(r"[,;]\s*(?:and\s+)?|\band\s+", message.text[end:]):
        following = message.text[end + more.end() :].split(maxsplit=2)
        if any(set(words(word)) & message.named for word in following[:2]):
            end += more.start()
            break
    else:
        end = len(message.text)
    found = trimmed(message.text, at.start("said"), end, whole=True)
    return found if found is not None and message.free(found.start, found.end) else None


def searched(each: Field, message: Message) -> Found | None:
    """All that is to be looked for, where the message says that something is."""
    if not set(spaced(each.name).split()) & _SEARCHED or (at := _SEARCHING.search(message.text)) is None:
        return None
    found = trimmed(message.text, at.start("said"), at.end("said"), whole=True)
    if found is None or not message.free(found.start, found.end):
        return None
    return message.peeled(found) or found


def query(each: Field, message: Message) -> Found | None:
    """The whole message, for a field that asks for no more than what is asked."""
    if not set(spaced(each.name).split()) & _SEARCHED or message.taken:
        return None
    return trimmed(message.text, 0, len(message.text), whole=True)


def payload(each: Field, message: Message) -> Found | None:
    """All that is to be said or done, for a field that is called a text or a task; a moment at its end is not of it."""
    if not set(re.findall(r"[a-z]+", each.name.lower())) & _SAID:
        return None
    for pattern in (_SAYING, _TO_DO):
        match = pattern.search(message.text)
        if match is not None:
            start, end = match.start("said"), match.end("said")
            for first, last in sorted(message.taken, reverse=True):
                if start < first and last >= end - 1:
                    end = message.unlabelled(start, start + len(_TRAILING.sub("", message.text[start:first])))
            found = trimmed(message.text, start, end, whole=True)
            if found is not None and message.free(found.start, found.end):
                return found
    return None


def cleaned(text: str, span: Span) -> Found | None:
    """A span without the little words and marks around it; None where nothing is left."""
    return trimmed(text, span.start, span.end)


def trimmed(text: str, start: int, end: int, *, whole: bool = False) -> Found | None:
    """Without marks around it; without little words around it too unless it is to stay `whole`.

    A capital tells that "the" belongs to a name.
    """
    while end > start and not (text[end - 1].isalnum() or text[end - 1] in ")%€$+#"):
        end -= 1
    while start < end and not (text[start].isalnum() or text[start] in "($€+#@"):
        start += 1
    if not whole:
        if start == 0 and (match := _COMMANDS.match(text[:end])):
            start = match.end()
        while match := _LEADING.match(text[start:end]):
            if start and match[0][0].isupper() and text[start + match.end()].isupper():
                break
            start += match.end()
        if start > 4 and text[start - 4 : start] == "The " and text[start].isupper():
            start -= 4
        end = start + len(_TRAILING.sub("", text[start:end]))
    return Found(start, end, text[start:end]) if words(text[start:end]) else None


# ---- enumerations ---------------------------------------------------------------------------------------------------


def items(text: str, start: int, end: int, taken: Sequence[tuple[int, int]] = ()) -> list[str]:
    """What is enumerated where `start`:`end` stands, with what goes on beside it: "eggs, milk and flour" is three."""
    if after := _AFTER.match(text, end):
        end = after.end()
    if before := _BEFORE.search(text[:start]):
        start = before.start()
    for first, _ in sorted(taken, reverse=True):
        if start < first < end:
            end = first
    parts = (trimmed(part, 0, len(part)) for part in _ITEM_END.split(text[start:end]))
    return [str(part.value) for part in parts if part is not None]
