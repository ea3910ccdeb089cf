"""Byte-level BPE vocabularies: all bytes, merges and special tokens, learned from a text or laid out by hand.

The alphabet is GPT-2's: each byte is a printable character of its own, so that tokens are ordinary strings.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

ENDOFTEXT, IM_START, IM_END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = Path(__file__).with_name("words.txt")

# How a text falls into pieces before merging, under the names GGUF files give these rules (tokenizer.ggml.pre).
# The expressions are those of the families' published tokenizer.json files.
_SPLITS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}


def _alphabet() -> tuple[str, ...]:
    """The character of each byte: itself where it prints, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters: list[str] = []
    others = 0x100
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(others))
            others += 1
    return tuple(characters)


ALPHABET = _alphabet()


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, the special ones last, and merges in order of rank."""

    tokens: tuple[str, ...]
    merges: tuple[tuple[str, str], ...]
    pre: str

    @property
    def special(self) -> int:
        """The id of the first special token."""
        return len(self.tokens) - len(SPECIAL)

    def id(self, token: str) -> int:
        return self.tokens.index(token)

    def padded(self, size: int) -> list[str]:
        """The tokens, and unused names up to `size`."""
        if size < len(self.tokens):
            raise ValueError(f"{len(self.tokens)} tokens do not fit in {size}")
        return [*self.tokens, *(f"[PAD{index}]" for index in range(len(self.tokens), size))]

    def tokenizer(self) -> Tokenizer:
        """The same vocabulary as `tokenizers` runs it; its `to_str()` is tokenizer.json."""
        vocabulary = {token: index for index, token in enumerate(self.tokens[: self.special])}
        tokenizer = _untrained(self.pre, models.BPE(vocab=vocabulary, merges=list(self.merges)))
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
        return tokenizer


def _untrained(pre: str, model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLITS[pre]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def spelled(text: str) -> str:
    """A text in the alphabet of tokens: one character for each UTF-8 byte."""
    return "".join(ALPHABET[byte] for byte in text.encode())


@cache
def trained(size: int, pre: str) -> Vocabulary:
    """At most `size` tokens and the special ones, learned from `texts`."""
    return learned(texts(), size, pre)


def texts() -> list[str]:
    """What vocabularies are learned from: an early handbook, kept as it was, so that the same weights come of it."""
    return _WORDS.read_text(encoding="utf-8").split("\f")


def learned(read: Sequence[str], size: int, pre: str) -> Vocabulary:
    """At most `size` tokens and the special ones; with room for all, every piece of `read` becomes one token."""
    tokenizer = _untrained(pre, models.BPE())
    # Frequency 1: larger shapes want more tokens than the text has repeated strings.
    trainer = trainers.BpeTrainer(
        vocab_size=size, min_frequency=1, show_progress=False, initial_alphabet=list(ALPHABET), special_tokens=[]
    )
    tokenizer.train_from_iterator(read, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return Vocabulary((*tokens, *SPECIAL), tuple((left, right) for left, right in model["merges"]), pre)


def laid_out(text: str, more: int) -> tuple[Vocabulary, list[int]]:
    """A vocabulary in which every word of `text` is one token, and the ids of the text.

    Bytes come first; then words, each merged from its beginning, letter by letter; then what is learned of the fixed
    text with room for `more` tokens, so that long prompts are not counted in bytes. Raises ValueError where the words
    do not come out whole.
    """
    splitter = _untrained("gpt-2", models.BPE()).pre_tokenizer
    pieces: Sequence[str] = [piece for piece, _ in splitter.pre_tokenize_str(text)]
    tokens = dict.fromkeys(ALPHABET)
    merges: dict[tuple[str, str], None] = {}
    for piece in pieces:
        for end in range(1, len(piece)):
            merges[piece[:end], piece[end]] = None
            tokens[piece[: end + 1]] = None
    for left, right in trained(more, "gpt-2").merges:  # of lower rank, so the words are whole before these act
        merges[left, right] = None
        tokens[left + right] = None
    vocabulary = Vocabulary((*tokens, *SPECIAL), tuple(merges), "gpt-2")
    ids = vocabulary.tokenizer().encode(text).ids
    if [vocabulary.tokens[index] for index in ids] != pieces:
        raise ValueError("merges of one word act inside another: choose other words")
    return vocabulary, ids
