"""Pictures in ExLlama's prompts: which tokens stand for one, and what a vision tower makes of it, kept for next time.

A picture is decoded by a thread and goes through the tower between two steps, so that the answers under way go on. What
came of it is kept by the file's content: the package gives it token ids of its own, so a conversation that goes on, or
another one about the same picture, has the same ids, and its pages are found again.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image as Pillow

from server.errors import InvalidValue, RequestError, ServiceError
from server.models.engine import Image
from server.models.engines.pictures import Picture, looked_at, parted
from server.models.engines.sampling.vocabulary import Vocabulary

_KEPT = 256 * 2**20
"""Bytes of what the tower made, in the machine's memory, beyond what answers under way need."""
_AHEAD = 2
"""How many pictures are decoded at a time; each takes up to 12 MB until the tower had it."""
_WAIT_S = 0.03
"""How long a step waits for a picture where there is nothing else to do."""


@dataclass(frozen=True)
class Embedded:
    """What a tower made of one picture: `ids` stand for it in the prompt that the package reads, `embedding` is the
    package's own object, of so many `bytes`."""

    ids: list[int]
    embedding: Any
    bytes: int


class Tower(Protocol):
    """A vision tower in a GPU's memory. Contract as a Generator's: its owner calls every method.

    `around` is the text that stands before a picture's tokens, and the one behind them.
    """

    around: tuple[str, str]
    weights_bytes: int

    def fitted(self, size: tuple[int, int]) -> tuple[int, int]:
        """The pixels, width and height, that a picture of `size` is to have. Raises ValueError, saying why, where it
        cannot be seen."""
        ...

    def layout(self, size: tuple[int, int]) -> list[int]:
        """The tokens that stand for a picture of that size, as the model knows them. Computes nothing."""
        ...

    def embed(self, picture: Pillow.Image) -> Embedded:
        """As many ids as `layout` of its size. Some milliseconds to half a second."""
        ...


@dataclass(eq=False)
class Placed:
    """A picture of one prompt, whose `tokens` stand there from the place `at` on."""

    at: int
    tokens: int
    picture: Picture
    key: str
    decoded: "Future[Pillow.Image] | None" = None
    embedded: Embedded | None = None


@dataclass(frozen=True)
class Seen:
    """A prompt with pictures: its tokens, those of the pictures too, and where these stand."""

    tokens: list[int]
    pictures: list[Placed]


class Vision:
    """The pictures of all requests to one model."""

    def __init__(self, tower: Tower, words: Vocabulary) -> None:
        self._tower = tower
        self._words = words
        self._kept: OrderedDict[str, Embedded] = OrderedDict()
        self._threads = ThreadPoolExecutor(_AHEAD, thread_name_prefix="picture")

    def read(self, prompt: str | list[int] | None, images: Sequence[Image]) -> Seen:
        """Looks at the heads of the pictures, and counts.

        Raises InvalidValue, naming the picture's field, where one cannot be read or seen.
        """
        if not isinstance(prompt, str):
            raise RequestError("Pictures stand in conversations, not in token ids.", param="prompt")
        texts, in_order = parted(prompt, images)
        pictures = [self._fitted(picture) for picture in looked_at(in_order)]
        before, behind = self._tower.around
        tokens = self._words.encode(texts[0] + before, begin=True)
        placed = []
        for picture, text in zip(pictures, texts[1:], strict=True):
            layout = self._tower.layout(picture.size)
            placed.append(Placed(len(tokens), len(layout), picture, _key(picture)))
            last = picture is pictures[-1]
            tokens += layout + self._words.encode(f"{behind}{text}{'' if last else before}")
        return Seen(tokens, placed)

    def _fitted(self, picture: Picture) -> Picture:
        try:
            return replace(picture, size=self._tower.fitted(picture.size))
        except ValueError as error:
            param = picture.image.param
            raise InvalidValue(f"The picture cannot be seen: {error}: `{param}`.", param=param) from error

    def look(self, wanted: Iterable[Placed], *, idle: bool) -> None:
        """Embed the first of `wanted`, if it is decoded, and have the next ones decoded. With `idle`, where there is
        nothing else to do, waits a moment for it.

        Raises InvalidValue where the first is corrupt: its request is at fault.
        """
        first: Placed | None = None
        for number, placed in enumerate(wanted):
            if number == _AHEAD:
                break
            first = first or placed
            if placed.decoded is None and placed.key not in self._kept:
                placed.decoded = self._threads.submit(placed.picture.decoded)
        if first is None:
            return
        if (known := self._kept.get(first.key)) is not None:
            self._kept.move_to_end(first.key)
            first.embedded, first.decoded = known, None
            return
        assert first.decoded is not None
        if idle:
            wait([first.decoded], _WAIT_S)
        if first.decoded.done():
            first.embedded, first.decoded = self._made(first, first.decoded.result()), None

    def _made(self, placed: Placed, picture: Pillow.Image) -> Embedded:
        made = self._tower.embed(picture)
        if len(made.ids) != placed.tokens:
            raise ServiceError(f"The vision tower made {len(made.ids)} tokens of a picture, not {placed.tokens}.")
        self._kept[placed.key] = made
        size = sum(each.bytes for each in self._kept.values())
        while size > _KEPT and len(self._kept) > 1:
            size -= self._kept.popitem(last=False)[1].bytes
        return made

    def close(self) -> None:
        """Let go what was kept, which holds on to the model. Idempotent; the tower is its generator's."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._kept.clear()


def _key(picture: Picture) -> str:
    """The same for the same file seen in the same size."""
    return f"{hashlib.sha256(picture.image.data).hexdigest()} {picture.size}"
