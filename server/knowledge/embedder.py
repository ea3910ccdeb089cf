"""What a collection asks of the model that embeds for it; a gateway's model handle satisfies it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Card
from server.models.prompts import Side


class Embeddings(Protocol):
    """`vectors` is float32 [inputs, dimension] in the order of the inputs, rows of unit length."""

    @property
    def vectors(self) -> NDArray[np.float32]: ...

    @property
    def tokens(self) -> int: ...


class Embedder(Protocol):
    """`card` is None until the weights are loaded; `embed` waits for them or raises a HearthError.

    `side` says whether the inputs are looked for or looked through: some models want other words before either.
    """

    @property
    def name(self) -> str: ...

    @property
    def card(self) -> Card | None: ...

    async def embed(self, inputs: Sequence[str], side: Side) -> Embeddings: ...


class Loading(Embedder, Protocol):
    """An embedder whose weights may still be on their way."""

    async def ready(self) -> object:
        """Wait until it can embed. Raises a HearthError where it never will."""
        ...


@dataclass(frozen=True)
class Filled:
    """Vectors that were not computed."""

    vectors: NDArray[np.float32]
    tokens: int = 0


class Blank:
    """Stands for a model that is gone: every text gets one vector, and no search may look at it."""

    name = "blank"
    card: Card | None = None

    def __init__(self, dimension: int) -> None:
        self._dimension = dimension

    async def embed(self, inputs: Sequence[str], side: Side) -> Filled:
        vectors = np.zeros((len(inputs), self._dimension), np.float32)
        vectors[:, 0] = 1  # of unit length, as every row's vector is
        return Filled(vectors)
