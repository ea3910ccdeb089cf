"""Ids of tool calls."""

from secrets import choice
from string import ascii_letters, digits

_ALPHABET = ascii_letters + digits
_LENGTH = 9
"""Mistral's chat templates take ids of nine letters and digits and nothing else, so every model gets such."""


def fresh_id() -> str:
    return "".join(choice(_ALPHABET) for _ in range(_LENGTH))
