"""What a conversation asks last: the question inside a prompt, what the prompt gives to answer from, whom "it" means.

Rules over words, for whatever searches or reads for an answer instead of understanding the conversation.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from server.models.engine import Message


class Prompt(NamedTuple):
    """`given` are the texts in it that are to be answered from, in order; empty where all of it is the question."""

    question: str
    given: list[str]


_LABEL = re.compile(
    r"^[ \t]*[*#]*[ \t]*(?:(?:user[ '’s]*|standalone |follow[ -]?up |input |original |new )?(?:question|query|frage)"
    r"|q|问题)[*]*[ \t]*[:：][*]*[ \t]*(?P<rest>.*)$",
    re.MULTILINE | re.IGNORECASE,
)
_CONTEXT = re.compile(
    r"^[ \t]*[*#]*[ \t]*(?:(?:retrieved |relevant |given |search )*(?:contexts?|documents?|passages?|sources|"
    r"information|text|article|results|excerpts?|kontext|上下文))[*]*[ \t]*[:：][*]*[ \t]*",
    re.MULTILINE | re.IGNORECASE,
)
_ANSWER = re.compile(
    r"\n[ \t]*[*#]*[ \t]*(?:(?:helpful|final|your|short|concise) )?(?:answer|response|antwort|assistant)[*]*[ \t]*"
    r"[:：][*]*\s*$",
    re.IGNORECASE,
)
_RULE = re.compile(r"^[ \t]*(?:-{5,}|={5,}|\*{5,}|_{5,})[ \t]*$", re.MULTILINE)
_TAGGED = re.compile(
    r"<(?P<tag>context|documents?|passages?|sources?|text|data|article|knowledge|information)\b[^<>]*>"
    r"(?P<inside>.*?)</(?P=tag)>",
    re.DOTALL | re.IGNORECASE,
)
_FENCED = re.compile(r'"""(.+?)"""|```[a-z]*\n(.+?)\n```', re.DOTALL)
_INSTRUCTION = re.compile(
    r"\b(?:use|using|given|based (?:only |solely )?on|according to|answer|from|with|following|read)\b"
    r"(?:[^.\w]+\w+){0,7}?[^.\w]+(?:context|question|query|questions|passages?|documents?|information|excerpts?|pieces|sources|text)\b"
    r"|\byou(?:['’]re| are) (?:a|an|the|now)\b|\bif you (?:don['’]?t|do not|cannot)\b"
    r"|\b(?:don['’]?t|do not|never) (?:try|make|use|invent|mention)\b|\bas an ai\b"
    r"|\byour (?:answer|task|job|role|reply|response|knowledge)\b|\b(?:keep|use) (?:the|your) answers?\b"
    r"|\b(?:sentences|words) (?:at most|maximum)\b|\b(?:always|please) (?:answer|reply|respond|say)\b"
    r"|\bprior knowledge\b|\bcontext information\b",
    re.IGNORECASE,
)
"""What tells a model how to answer, and is nothing to answer from."""

_LONG = 240
"""Characters of the longest question, and of a question that one after it is joined with."""
_TEXT, _TEXT_MEANT = 160, 300
"""Characters from which on what stands beside a question, with no mark, is a text to answer from; the second is for a
question that cannot be understood without it."""
_SENTENCE = re.compile(r"(?<=[.!?:])\s+")
_SYSTEM_LEAST = 40
"""A shorter paragraph of a system message, or quotation, tells no facts."""


def prompt(text: str) -> Prompt:
    """The question in a user's message, and the texts around it.

    Found are the prompts of LangChain, LlamaIndex and Haystack and what is written like them: a text after "Context:",
    between lines of dashes, tags or quotes, and a question after "Question:" or "Query:"; else a long text that begins
    or ends with a question.
    """
    text = text.strip()
    body = _ANSWER.sub("", f"\n{text}").strip()
    labels = list(_LABEL.finditer(body))
    if labels:
        return _labelled(body, labels)
    marked = given(body)
    if marked:
        rest = body
        for each in marked:
            rest = rest.replace(each, "\n\n", 1)
        asked = _asked(_without_marks(rest))
        return Prompt(asked, marked) if asked else Prompt(text, [])
    return _beside(text, body)


def _labelled(body: str, labels: list[re.Match[str]]) -> Prompt:
    label = labels[-1]
    end = len(body)
    after = body[label.end() : end]
    context = _CONTEXT.search(body, label.end())
    question = label["rest"].strip()
    if not question:
        first = re.search(r"\S.*", after)
        question = first[0].strip() if first else ""
    begins = body.find(question, label.start()) if question else label.end()
    if context is not None and begins >= context.start():
        return Prompt(body, [])
    stop = context.start() if context is not None else end
    tail = re.split(r"\n[ \t]*\n", body[begins:stop], maxsplit=1)
    question = re.sub(r"\s*\n\s*", " ", tail[0]).strip()
    rest = f"{body[: label.start()]}\n\n{tail[1] if len(tail) > 1 else ''}\n\n{body[stop:]}"
    return Prompt(question, given(rest) or _facts(rest)) if question else Prompt(body, [])


def given(text: str) -> list[str]:
    """What is marked in `text` as something to answer from: between tags, rules or quotes, or after "Context:"."""
    if tagged := [each["inside"].strip() for each in _TAGGED.finditer(text)]:
        return [each for each in tagged if each]
    rules = list(_RULE.finditer(text))
    if rules:
        end = rules[-1].start() if len(rules) > 1 else len(text)
        return [inside] if (inside := text[rules[0].end() : end].strip()) else []
    label = _CONTEXT.search(text)
    if label is not None:
        return [inside] if (inside := text[label.end() :].strip()) else []
    return [
        found
        for each in _FENCED.finditer(text)
        if (found := (each[1] or each[2]).strip()) and len(found) > _SYSTEM_LEAST
    ]


def told(system: str) -> list[str]:
    """What a system message gives to answer from: what is marked so, else paragraphs that tell the model nothing."""
    return given(system) or [each for each in _facts(system) if len(each) >= _SYSTEM_LEAST]


def _facts(text: str) -> list[str]:
    whole = [
        paragraph
        for part in re.split(r"\n[ \t]*\n", _without_marks(text))
        if (paragraph := _telling_nobody(part.strip()))
    ]
    return ["\n\n".join(whole)] if whole else []


def _telling_nobody(paragraph: str) -> str:
    """A paragraph without the sentences that tell a model how to answer."""
    if not _INSTRUCTION.search(paragraph):
        return paragraph
    return " ".join(each for each in _SENTENCE.split(paragraph) if not _INSTRUCTION.search(each))


def _without_marks(text: str) -> str:
    return _CONTEXT.sub("", _RULE.sub("", re.sub(r"</?[A-Za-z]+>|\"\"\"|```[a-z]*", "", text)))


def _asked(text: str) -> str:
    """The last line that asks something, else the last that tells the model nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    asking = [line for line in lines if line.endswith(("?", "？"))]
    if asking:
        return asking[-1]
    plain = [line for line in lines if not _INSTRUCTION.search(line)]
    return plain[-1] if plain else ""


def _beside(text: str, body: str) -> Prompt:
    """A long text without any mark, with a question in its last or first line."""
    lines = [line for line in re.split(r"\n+", body) if line.strip()]
    if len(lines) < 2:
        return Prompt(text, [])
    for line in (lines[-1], lines[0]):
        if line.rstrip().endswith(("?", "？")) and len(line) < _LONG:
            at = body.rfind(line) if line is lines[-1] else body.find(line)
            rest = (body[:at] + body[at + len(line) :]).strip()
            if len(rest) >= (_TEXT_MEANT if follows(line) else _TEXT):
                return Prompt(line.strip(), _facts(rest) or [rest])
    return Prompt(text, [])


# ---- follow-up questions --------------------------------------------------------------------------------------------

_WORD = re.compile(r"[\w'’-]+")
_BEGINS = re.compile(r"^\W*(?:and|but|or|so|also|what about|how about|what of|und|was ist mit)\b\W*", re.IGNORECASE)
_POSSESSIVE = frozenset(("its", "their", "his", "her", "hers", "theirs"))
_PRONOUNS = frozenset(
    ("it", "they", "them", "he", "she", "him", "this", "that", "these", "those", "one", "ones", *_POSSESSIVE)
)
_ASKING = """
a about also an and any are as at be been but by can could did do does else for from had has have how i if in is kind
long many me more much my of on or please same should so some sort tell than the then there to too up was we were what
when where which who whom whose why will with would you your i'm what's who's how's where's
"""
_EMPTY = frozenset(_ASKING.split())
_MOST = 2
"""A question with a pronoun and more words of its own than this, some of them before it, says itself what it means."""
_NAMED = re.compile(r"\b[A-Z][\w-]*(?:\s+(?:[A-Z0-9][\w-]*|(?:of|de|von)(?=\s+[A-Z]))(?=\W|$))*")
_BEGINNING = re.compile(r"(?:^|[.?!:]\s+)\W*$")
_PLACED = re.compile(r"\b(?:in|at|from|on|by|near|to|for)\s+(?:the\s+)?$", re.IGNORECASE)
"""Before a name that only says where or when, which "it" does not mean."""


def asked_last(messages: Sequence[Message]) -> str:
    """What the last message of the user asks, such that it can be understood alone; "" where nobody asks.

    A question that names nothing itself ("and its price?", "what about the blue one?") is joined with the one before:
    a name in that stands for the pronoun, else what it is about stands behind a whole question, and it stands itself
    before a part of one.
    """
    asked = [prompt(each.text).question for each in messages if each.role == "user" and each.text.strip()]
    meant = ""
    for question in asked:
        meant = joined(question, meant)
    return meant


def joined(question: str, before: str) -> str:
    """`question` with what it lacks from `before`, the question that came before it as it was understood."""
    if not before or not follows(question):
        return question
    name = named(before)
    words = [word.lower() for word in _WORD.findall(question)]
    if name and any(word in _PRONOUNS for word in words):
        return _replaced(_BEGINS.sub("", question, count=1) or question, name)
    bare = _BEGINS.sub("", question, count=1)
    if any(word in _PRONOUNS for word in words) and _WHOLE.match(bare):
        return f"{bare.strip()} {_topic(before)}".strip()
    return f"{before[-_LONG:].strip()} {question.strip()}"


_WHOLE = re.compile(
    r"(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|do|does|did|can|has|have)\b(?! about)",
    re.IGNORECASE,
)


def _topic(before: str) -> str:
    """A question without the words at its beginning that only ask."""
    words = before[-_LONG:].split()
    while words and words[0].lower().strip(",") in _EMPTY:
        words = words[1:]
    return " ".join(words).rstrip("?？ ")


def follows(question: str) -> bool:
    """Whether `question` needs the one before: it begins with "and" or "what about", names nothing, or says "it"."""
    words = [word.lower() for word in _WORD.findall(question)]
    if not words or not any(letter.isascii() for letter in question if letter.isalnum()):
        return False
    content = [word for word in words if word not in _EMPTY and word not in _PRONOUNS]
    if not content:
        return True
    if _BEGINS.match(question) and len(content) <= 2 * _MOST:
        return True
    places = [place for place, word in enumerate(words) if word in _PRONOUNS]
    if not places:
        return False
    before = [word for word in words[: places[0]] if word in content]
    return len(content) <= _MOST or (not before and words[places[0]] not in ("this", "that", "these", "those", "one"))


def named(question: str) -> str:
    """The last name in a question, other than of where or when."""
    found = [question[start:end] for start, end in names(question) if not _PLACED.search(question[:start])]
    return found[-1] if found else ""


def names(text: str) -> list[tuple[int, int]]:
    """Where names stand: words with capitals, but for one alone that begins a sentence."""
    found = []
    for match in _NAMED.finditer(text):
        start, begins = match.start(), bool(_BEGINNING.search(text[: match.start()]))
        words = list(_WORD.finditer(text, start, match.end()))
        while words and words[0][0].lower() in _EMPTY:
            words, begins = words[1:], False
        # The word that begins a sentence has its capital for that.
        if words and not (begins and len(words) == 1):
            found.append((words[0].start(), match.end()))
    return found


def _replaced(question: str, name: str) -> str:
    def put(word: re.Match[str]) -> str:
        said = word[0].lower()
        if said in _POSSESSIVE:
            return f"{name}'s"
        return name if said in _PRONOUNS else word[0]

    return _WORD.sub(put, question)
