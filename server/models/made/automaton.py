"""A model that knows one text and the shortest JSON: its last token alone decides what follows.

The embedding gives every token that matters a dimension of its own and all others one together, the layers add
nothing, and the head is a table of successors.
So it is a llama to every engine, and what it says is known beforehand: the text, then the end of the turn. Under a
grammar, where the text is not allowed, what comes next in preference closes what is open.
"""

import string
from collections.abc import Iterator

import gguf
import numpy as np
from numpy.typing import NDArray

from server.models.made.shapes import Shape, Tensor
from server.models.made.vocabulary import ALPHABET, IM_END, laid_out
from server.models.made.weights import Floats

TEXT = (
    "Hello this is a very small model made for tests it knows exactly one answer and always says that same thing "
    "word after without ever learning anything new because its weights were written down as plain rules instead of "
    "being trained on much so every run ends here."
)

# Logits. One step of preference is two, far above what Q8_0 and bfloat16 round away; the free successor stands out so
# far that sampling at temperature 1 takes it too.
_FREE, _END, _FIRST, _STEP = 60.0, 40.0, 32.0, 2.0

_OTHERWISE = '"a}],:0'

# What follows a character of JSON, best first, where a grammar forbids the end. Inside a string the quote is always
# best, or the same character could follow itself for ever; outside, a grammar forbids it where it would not close.
_AFTER = {
    "{": '}"',
    "[": ']0"{[',
    ":": '0"[{',
    ",": '0"[{',
    '"': '"a}]:,',
    "}": '"}],',
    "]": '"}],',
    ">": _OTHERWISE,  # a call has been closed, and the model makes no other
    "\n": '}]0"{[,:a',
    **dict.fromkeys(string.digits, '"}],0'),
}


_LEARNED = 4000
"""Room for tokens beside the words of the text."""


class Automaton:
    """Shape, vocabulary and weights of the model that says `text`.

    Raises ValueError where a token of the text comes twice, for one token has one successor.
    """

    def __init__(self, text: str = TEXT, *, beside: str = "", room: int = 0, theta: float = 10_000.0) -> None:
        """`beside` are words, each after a space, that are tokens too and are followed by the last one of `text`.

        `room` is how many dimensions are left free, from `free` on.
        """
        self.vocabulary, ids = laid_out(text + beside, _LEARNED)
        words = beside.count(" ")
        self._chain, self.beside = ids[: len(ids) - words], ids[len(ids) - words :]
        start = self._byte("\n")  # the last token of a rendered conversation
        if len({*self._chain, start}) != len(self._chain) + 1:
            raise ValueError("a word comes twice, or the text has a line break")
        self._chain = [start, *self._chain]
        known = {token: ALPHABET.index(name) for token, name in enumerate(self.vocabulary.tokens) if name in ALPHABET}
        written = [token for token, byte in known.items() if chr(byte) in _AFTER]
        own = dict.fromkeys([*self._chain, *self.beside, *written])
        self._places = {token: place for place, token in enumerate(own, 1)}
        size = -(-len(self.vocabulary.tokens) // 32) * 32
        self.free = len(own) + 1
        hidden = -(-(self.free + room) // 64) * 64
        heads = hidden // 64
        self.shape = Shape("llama", hidden, 1, heads, heads, 64, 64, size, tied=False, theta=theta, context=131_072)

    def place(self, token: str) -> int:
        """The dimension of a token that has one of its own."""
        return self._places[self.vocabulary.id(token)]

    def values(self, tensor: Tensor) -> Floats:
        if tensor.part.endswith("norm.weight"):
            return np.ones(tensor.shape, np.float32)
        if tensor.part == "embed_tokens.weight":
            return self._embedding(tensor.shape)
        if tensor.part == "lm_head.weight":
            return self._head(tensor.shape)
        return np.zeros(tensor.shape, np.float32)

    def blocks(self, tensor: Tensor, kind: gguf.GGMLQuantizationType) -> NDArray[np.uint8] | None:
        return None

    def _embedding(self, shape: tuple[int, ...]) -> Floats:
        """Rows are tokens, columns their places; place 0 is that of all the tokens which are followed alike."""
        embedding = np.zeros(shape, np.float32)
        for token in range(shape[0]):
            embedding[token, self._places.get(token, 0)] = 1.0
        return embedding

    def _head(self, shape: tuple[int, ...]) -> Floats:
        """Rows are successors, columns the place of the last token."""
        head = np.zeros(shape, np.float32)
        for token, place in [(self.vocabulary.id(IM_END), 0), *self._places.items()]:
            for successor, logit in self._successors(token):
                head[successor, place] = max(head[successor, place], logit)
        # The norm before the head makes a one-hot vector sqrt(hidden) long.
        return head / np.float32(np.sqrt(self.shape.hidden))

    def _successors(self, token: int) -> Iterator[tuple[int, float]]:
        """Pairs of a token and its logit after `token`."""
        end = self.vocabulary.id(IM_END)
        name = self.vocabulary.tokens[token]
        character = chr(ALPHABET.index(name)) if name in ALPHABET else ""
        chained = dict(zip(self._chain, [*self._chain[1:], end], strict=True))
        if token in chained:
            yield chained[token], _FREE
        elif token in self.beside:
            yield self._chain[-1], _FREE
        elif character and character in _AFTER:
            yield end, _FREE
        else:
            yield self._chain[0], _FREE
        yield end, _END
        for rank, follower in enumerate(_AFTER.get(character, _OTHERWISE)):
            yield self._byte(follower), _FIRST - _STEP * rank

    def _byte(self, character: str) -> int:
        return self.vocabulary.id(ALPHABET[ord(character)])
