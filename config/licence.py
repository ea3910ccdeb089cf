"""Licences as SPDX writes them: identifiers joined by OR, AND and WITH. Knows the syntax, not the list of licences."""

import re
from collections.abc import Collection
from dataclasses import dataclass

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9][A-Za-z0-9.:+-]*)")
_WORDS = frozenset({"and", "or", "with"})
_MAX_CHARACTERS = 500
_MAX_DEPTH = 20


class NotALicence(ValueError):
    """The text is no SPDX expression; the message says where it stops being one."""


@dataclass(frozen=True)
class Expression:
    """An SPDX expression: one identifier (with its exception), or several of which one or all bind."""

    name: str = ""
    any_of: tuple["Expression", ...] = ()
    all_of: tuple["Expression", ...] = ()

    def is_allowed(self, allowed: Collection[str]) -> bool:
        """Whether one may use the text under licences of `allowed` alone. The case of letters has no meaning."""
        if self.any_of:
            return any(each.is_allowed(allowed) for each in self.any_of)
        if self.all_of:
            return all(each.is_allowed(allowed) for each in self.all_of)
        return self.name.casefold() in {each.casefold() for each in allowed}


def parsed(text: str) -> Expression:
    """The expression that `text` writes: AND binds closer than OR. Raises NotALicence."""
    if len(text) > _MAX_CHARACTERS:
        raise NotALicence(f"it is longer than {_MAX_CHARACTERS} characters")
    tokens = _tokens(text)
    found, rest = _either(tokens, 0)
    if rest:
        raise NotALicence(f"{rest[0]!r} is not expected")
    return found


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = text.strip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise NotALicence(f"{text[at:].strip()[:20]!r} is not expected")
        tokens.append(token[1])
        at = token.end()
    return tokens


def _either(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    found, tokens = _both(tokens, depth)
    parts = [found]
    while tokens and tokens[0].casefold() == "or":
        found, tokens = _both(tokens[1:], depth)
        parts.append(found)
    return (parts[0] if len(parts) == 1 else Expression(any_of=tuple(parts))), tokens


def _both(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    found, tokens = _one(tokens, depth)
    parts = [found]
    while tokens and tokens[0].casefold() == "and":
        found, tokens = _one(tokens[1:], depth)
        parts.append(found)
    return (parts[0] if len(parts) == 1 else Expression(all_of=tuple(parts))), tokens


def _one(tokens: list[str], depth: int) -> tuple[Expression, list[str]]:
    if depth > _MAX_DEPTH:
        raise NotALicence(f"it is nested deeper than {_MAX_DEPTH}")
    if tokens and tokens[0] == "(":
        found, tokens = _either(tokens[1:], depth + 1)
        if not tokens or tokens[0] != ")":
            raise NotALicence("a parenthesis is not closed")
        return found, tokens[1:]
    name = _identifier(tokens)
    if len(tokens) > 1 and tokens[1].casefold() == "with":
        return Expression(f"{name} WITH {_identifier(tokens[2:])}"), tokens[3:]
    return Expression(name), tokens[1:]


def _identifier(tokens: list[str]) -> str:
    if not tokens or tokens[0] in "()" or tokens[0].casefold() in _WORDS:
        raise NotALicence(f"a licence is missing{f' before {tokens[0]!r}' if tokens else ' at its end'}")
    return tokens[0]
