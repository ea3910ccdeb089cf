"""What a collection asks of the model that embeds for it; a gateway's model handle satisfies it."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Card


class Embeddings(Protocol):
    """`vectors` is float32 [inputs, dimension] in the order of the inputs, rows of unit length."""

    @property
    def vectors(self) -> NDArray[np.float32]: ...

    @property
    def tokens(self) -> int: ...


class Embedder(Protocol):
    """`card` is None until the weights are loaded; `embed` waits for them or raises a HearthError."""

    @property
    def name(self) -> str: ...

    @property
    def card(self) -> Card | None: ...

    async def embed(self, inputs: Sequence[str]) -> Embeddings: ...


class Loading(Embedder, Protocol):
    """An embedder whose weights may still be on their way."""

    async def ready(self) -> object:
        """Wait until it can embed. Raises a HearthError where it never will."""
        ...
