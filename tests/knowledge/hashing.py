"""A deterministic embedder that needs no weights: hashed words, so that texts with words in common are near."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Card
from server.models.prompts import Side


@dataclass(frozen=True)
class HashedWords:
    vectors: NDArray[np.float32]
    tokens: int


class HashEmbedder:
    """Each word adds one dimension of `dimension`; `salt` makes another model of it.

    `fail_on` makes it raise on an input that holds this word, as an engine that breaks midway does.
    """

    def __init__(
        self, *, dimension: int = 64, context: int = 256, tokenizer: str | None = None, salt: str = ""
    ) -> None:
        self.name = "hash"
        identity = f"{salt}{dimension}"
        self.card = Card("embed", "hashed words", context, dimension=dimension, tokenizer=tokenizer, identity=identity)
        self.fail_on: str | None = None
        self.longest = 0
        self.inputs = 0
        self._dimension = dimension
        self._salt = salt

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> HashedWords:
        if self.fail_on is not None and any(self.fail_on in text for text in inputs):
            raise RuntimeError("the embedder broke")
        self.inputs += len(inputs)
        words = [re.findall(r"\w+", text.lower()) for text in inputs]
        self.longest = max([self.longest, *map(len, inputs)])
        return HashedWords(np.stack([self._vector(each) for each in words]), sum(map(len, words)))

    def _vector(self, words: Sequence[str]) -> NDArray[np.float32]:
        vector = np.full(self._dimension, 1e-3, np.float32)
        for word in words:
            vector[int.from_bytes(blake2b((self._salt + word).encode()).digest()[:4]) % self._dimension] += 1
        unit: NDArray[np.float32] = vector / np.linalg.norm(vector)
        return unit
