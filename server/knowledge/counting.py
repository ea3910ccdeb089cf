"""Counts tokens as the embedding model does, or estimates them where its tokenizer is not at hand."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.knowledge.splitter import Count
from server.models.engine import Card

_CHARACTERS_PER_TOKEN = 4
_SEAM = 2
"""Tokens that may come where a prompt and a text meet."""


@dataclass(frozen=True)
class Counter:
    """`count` gives the tokens of each text; `room` is how many an input may have beside its special tokens."""

    count: Count
    room: int


def counter(card: Card) -> Counter:
    """Blocks for the tokenizer's file (tens of milliseconds). Raises OSError or ValueError where it is not one."""
    if card.tokenizer is None:
        return Counter(estimate, card.context)
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(card.tokenizer)
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise ValueError(f"{card.tokenizer} is not a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    room = card.context - tokenizer.num_special_tokens_to_add(False)
    if card.prompts:
        room -= max(count([*card.prompts.values()])) + _SEAM
    return Counter(count, room)


def estimate(texts: Sequence[str]) -> list[int]:
    """About four characters a token in European languages; other scripts' characters count one each."""
    return [-(-len(text) // _CHARACTERS_PER_TOKEN) if text.isascii() else _wide(text) for text in texts]


def _wide(text: str) -> int:
    narrow = sum(char < "\u0250" for char in text)
    return len(text) - narrow - (-narrow // _CHARACTERS_PER_TOKEN)
