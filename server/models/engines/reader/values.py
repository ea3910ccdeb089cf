"""Finds typed values in what a person wrote: numbers, dates, times, addresses, words of a choice. No model in here."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime, time
from typing import Any, NamedTuple

from server.models.engines.reader.nearness import words

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SPELLED = {
    **{word: value for value, word in enumerate(_ONES)},
    **{word: 10 * value for value, word in enumerate(_TENS, 2)},
    **{
        f"{ten}-{one}": 10 * tens + ones for tens, ten in enumerate(_TENS, 2) for ones, one in enumerate(_ONES[1:10], 1)
    },
    **{"dozen": 12, "hundred": 100, "thousand": 1000, "couple": 2},
}
_SCALES = {"k": 1e3, "thousand": 1e3, "million": 1e6, "hundred": 100, "billion": 1e9, "dozen": 12}
_NUMBER = re.compile(
    r"(?<![\w.,#-])(?P<sign>-(?=\d))?(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?:\s?(?P<scale>k|thousand|million|hundred|billion|dozen)\b)?(?![\d]|\w*\d)"
    rf"|\b(?P<word>{'|'.join(sorted(_SPELLED, key=len, reverse=True))})\b"
    r"(?:\s(?P<more>hundred|thousand|million|dozen)\b)?(?!\s(?:numbers?|values|things|of (?:them|these|those))\b)",
    re.IGNORECASE,
)
_NOT_ONE = re.compile(r"\b(?:the|this|that|which|any|no|each|every|another)(?:\s\w+)?\s$", re.IGNORECASE)
"""Before a "one" that stands for a thing."""


class Found(NamedTuple):
    """A value and the characters `start`:`end` that say it."""

    start: int
    end: int
    value: float | int | str


def numbers(text: str) -> list[Found]:
    """All numbers, in digits or spelled; those that are a part of a date, a time or a name are left out."""
    taken = [*moments(text), *addresses(text, "email"), *addresses(text, "url"), *addresses(text, "phone")]
    return [
        each for each in _numbers(text) if not any(each.start < other.end and other.start < each.end for other in taken)
    ]


def _numbers(text: str) -> Iterator[Found]:
    for match in _NUMBER.finditer(text):
        if match["word"]:
            if match["word"].lower() == "one" and _NOT_ONE.search(text[: match.start()]):
                continue
            value: float = _SPELLED[match["word"].lower()] * _SCALES.get((match["more"] or "").lower(), 1)
        else:
            value = float(match["digits"].replace(",", "")) * _SCALES.get((match["scale"] or "").lower(), 1)
            value = -value if match["sign"] else value
        yield Found(match.start(), match.end(), int(value) if float(value).is_integer() else value)


# ---- dates and times ------------------------------------------------------------------------------------------------

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_DAY = rf"""
    \d{{4}}-\d{{2}}-\d{{2}}(?:[T ]\d{{2}}:\d{{2}}(?::\d{{2}})?(?:Z|[+-]\d{{2}}:?\d{{2}})?)?
  | \d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}}
  | (?:the\s)?\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s\d{{4}})?\b
  | {_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?\b(?:,?\s\d{{4}})?
  | (?:the\s)?day\safter\stomorrow | tomorrow | today | tonight | yesterday
  | (?:next|this|last|coming)\s(?:{_WEEKDAY}|week|month|year|weekend)
  | {_WEEKDAY}s?\b
  | in\s(?:\d+|a|an|{"|".join(_ONES[1:13])})\s(?:days?|weeks?|months?|years?)
"""
_TIME = r"""
    \d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b\.?)?
  | \d{1,2}\s?[ap]\.?m\b\.?
  | noon | midnight | \d{1,2}\so['’]clock
"""
_DATES = re.compile(rf"(?<![\w.])(?:{_DAY})(?!\w)", re.IGNORECASE | re.VERBOSE)
_TIMES = re.compile(rf"(?<![\w:.-])(?:{_TIME})(?!\w)", re.IGNORECASE | re.VERBOSE)


def moments(text: str) -> list[Found]:
    """All expressions of a day or a time of day, as they are written."""
    return [*dates(text), *times(text)]


def dates(text: str) -> list[Found]:
    return [Found(match.start(), match.end(), match[0]) for match in _DATES.finditer(text)]


def times(text: str) -> list[Found]:
    inside = [(match.start(), match.end()) for match in _DATES.finditer(text)]
    return [
        Found(match.start(), match.end(), match[0])
        for match in _TIMES.finditer(text)
        if not any(start <= match.start() < end for start, end in inside)
    ]


def iso_date(said: str, today: date) -> str | None:
    """`said` as YYYY-MM-DD, counted from `today`; a weekday or a day without a year is the next one to come."""
    read = _read(said, datetime.combine(today, time()))
    return None if read is None else read.date().isoformat()


def iso_time(said: str) -> str | None:
    """`said` as HH:MM."""
    read = _read({"noon": "12:00", "midnight": "00:00"}.get(said.lower(), re.sub(r"\s?o['’]clock", ":00", said)), None)
    return None if read is None else read.strftime("%H:%M")


def _read(said: str, base: datetime | None) -> datetime | None:
    import dateparser  # half a second, which only a date is worth

    plain = re.sub(r"^(?:the|on|this|next|coming)\s", "", said.strip(), flags=re.IGNORECASE)
    if re.match(r"\d{1,2}[./]\d{1,2}[./]", plain):
        order = "DMY" if "." in plain else "MDY"
    else:
        order = "YMD" if re.match(r"\d{4}-", plain) else "MDY"
    if re.fullmatch(r"(?:the )?day after tomorrow", said.strip(), re.IGNORECASE):
        plain = "in 2 days"
    plain = {"tonight": "today", "week": "in 1 week", "month": "in 1 month", "year": "in 1 year"}.get(
        plain.lower(), plain
    )
    settings: dict[str, Any] = {"DATE_ORDER": order, "PREFER_DATES_FROM": "future"}
    if base is not None:
        settings["RELATIVE_BASE"] = base
    read: datetime | None = dateparser.parse(plain, languages=["en"], settings=settings)
    return read


# ---- addresses and quotations ---------------------------------------------------------------------------------------

_ADDRESSES = {
    "email": re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(r"https?://[^\s<>\"')]+[^\s<>\"').,;:?!]|\bwww\.[^\s<>\"')]+[^\s<>\"').,;:?!]"),
    "host": re.compile(
        r"(?<![\w@.-])(?:[\w-]+\.)+[a-z]{2,}(?![\w-])|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])|\blocalhost\b"
    ),
    "phone": re.compile(r"(?<!\w)\+?\d[\d ()/-]{6,}\d(?!\w)"),
}
_QUOTED = re.compile(r"[\"“„«](?P<double>[^\"“”„«»]+)[\"”“»]|(?<!\w)['‘](?P<single>[^'’]+)['’](?!\w)")


def addresses(text: str, kind: str) -> list[Found]:
    """Those of `kind`: email, url, host or phone."""
    found = [Found(match.start(), match.end(), match[0]) for match in _ADDRESSES[kind].finditer(text)]
    return found if kind != "phone" else [each for each in found if not _DATES.fullmatch(str(each.value))]


def quotations(text: str) -> list[Found]:
    """What stands in quotation marks, without them; a word's apostrophe is none."""
    found = []
    for match in _QUOTED.finditer(text):
        group = "double" if match["double"] else "single"
        found.append(Found(match.start(group), match.end(group), match[group]))
    return found


# ---- choices --------------------------------------------------------------------------------------------------------


def chosen(text: str, options: Sequence[str]) -> list[Found]:
    """The options that `text` says, whole words of any case, in the order of the text; longer ones go before."""
    found: list[Found] = []
    for option in sorted(options, key=len, reverse=True):
        spoken = re.sub(r"[_\s-]+", r"[\\s_-]+", re.escape(option).replace(r"\ ", " ").replace(r"\-", "-"))
        for match in re.finditer(rf"(?<!\w){spoken}(?:s|es)?(?!\w)", text, re.IGNORECASE):
            if not any(each.start < match.end() and match.start() < each.end for each in found):
                found.append(Found(match.start(), match.end(), option))
    return sorted(found)


_NEGATION = re.compile(
    r"\b(?:no|not|non|without|never|don['’]?t|doesn['’]?t|isn['’]?t|dont|disable|skip|exclude)\b", re.IGNORECASE
)
_SAYS_YES = re.compile(r"^\W*(?:yes|yeah|sure|true|please do)\b", re.IGNORECASE)
_SAYS_NO = re.compile(r"^\W*(?:no|nope|false)\b", re.IGNORECASE)


def switched(text: str, stems: Iterable[str]) -> bool | None:
    """Whether `text` wants what the words of these `stems` name: None where it does not say, False beside a "not"."""
    wanted = set(stems)
    said = list(re.finditer(r"[\w'’-]+", text))
    for place, match in enumerate(said):
        if wanted & set(words(match[0])):
            before = text[said[max(0, place - 4)].start() : match.start()]
            return _NEGATION.search(re.split(r"[,.;!?]", before)[-1]) is None
    return None


def negated(text: str) -> bool:
    """Whether `text` says "not", "no" or the like."""
    return _NEGATION.search(text) is not None


def agreed(text: str) -> bool | None:
    """Whether an answer says yes or no; None where it says neither."""
    if _SAYS_NO.match(text):
        return False
    return True if _SAYS_YES.match(text) else None
