"""Prompts of a wanted length in a model's own tokens, no two alike, so that no cache of prefixes helps either side."""

import random
import re
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from server.models.engine import Message
from server.models.made.vocabulary import texts
from server.models.template import ChatTemplate


class Prompt(NamedTuple):
    """A user's turn, and the token ids of the conversation as the model's template renders it."""

    text: str
    ids: list[int]


class Prompts:
    """Random words of a fixed text; the same prompts in every run."""

    def __init__(self, file: Path) -> None:
        """`file` is the model's GGUF file."""
        from server.models.engines.paged.gguf_file import GgufFile
        from server.models.engines.sampling import vocabulary

        weights = GgufFile(file)
        self._words = vocabulary.from_gguf(weights.header, weights.shape.vocabulary)
        self._template = ChatTemplate(self._words.template or "", self._words.special)
        self._known = sorted({word for text in texts() for word in re.findall(r"\b[a-z]+\b", text)})
        self._random = random.Random(0)
        one, other = (reversed(self._prompt(text).ids) for text in ("one", "other"))
        self._tail = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
        """Tokens after what the user wrote."""

    def unique(self, tokens: int) -> Prompt:
        """About `tokens` tokens, at least that many."""
        return self._longer("", tokens)

    def sharing(self, shared: int, tokens: int, count: int) -> list[Prompt]:
        """`count` prompts of about `tokens` tokens, of which at least the first `shared` are the same."""
        base = self._longer("", shared + self._tail).text
        return [self._longer(base, tokens) for _ in range(count)]

    def _longer(self, text: str, tokens: int) -> Prompt:
        prompt = self._prompt(text)
        while (missing := tokens - len(prompt.ids)) > 0:
            words = self._random.choices(self._known, k=max(1, missing // 3))
            prompt = self._prompt(" ".join([prompt.text, *words] if prompt.text else words))
        return prompt

    def _prompt(self, text: str) -> Prompt:
        return Prompt(text, self._words.encode(self._template.render([Message("user", text)])))
