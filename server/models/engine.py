"""What an engine is: the protocol every engine passes, and the values that cross the worker's socket.

An engine lives in a worker process and is synchronous. One thread, its owner, calls every method; nobody else does.
It knows nothing of HTTP, recipes' other sections, asyncio or processes.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from server.errors import HearthError


class Message(msgspec.Struct, frozen=True):
    """One turn of the conversation; `role` is system, user, assistant or tool."""

    role: str
    text: str


class Passage(msgspec.Struct, frozen=True):
    """A piece of knowledge found for this turn. `source` is what a person would recognise: a file name and heading."""

    text: str
    source: str
    score: float
    """0 to 1, higher is nearer."""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    """Answer a conversation. `max_tokens` None means as many as the context leaves.

    `passages` is None where no knowledge is attached, and empty where some is but nothing was found.
    """

    messages: list[Message]
    passages: list[Passage] | None = None
    max_tokens: int | None = None


class Embed(msgspec.Struct, frozen=True, tag="embed"):
    """One vector per input, in order: `texts`, or else `tokens`, the model's own ids without special ones."""

    texts: list[str] | None = None
    tokens: list[list[int]] | None = None


Request = Generate | Embed


class Admitted(msgspec.Struct, frozen=True, tag="admitted"):
    """First event of every request: it was valid and waits for its turn. Sent before any heavy work is done."""

    prompt_tokens: int
    cached_tokens: int = 0


class Citation(msgspec.Struct, frozen=True):
    """`start`:`end` are characters of the whole answer; `passage` indexes the request's passages.

    `quote_start`:`quote_end` are characters of that passage's text.
    """

    passage: int
    start: int
    end: int
    quote_start: int
    quote_end: int


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """What one step added to one answer. The last one carries `finish_reason`: "stop" or "length"."""

    text: str = ""
    tokens: int = 0
    citations: list[Citation] = []
    finish_reason: str | None = None


class Vectors(msgspec.Struct, frozen=True, tag="vectors"):
    """Rows `indices` of an Embed request: `data` is little-endian float32, len(indices) x dimension, unit length.

    Rows may come in any order over several events (engines sort by length); `last` is set on the final one.
    """

    indices: list[int]
    data: bytes
    last: bool


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """This request ended with a fault and will get no further event; `code` is that of the error tree."""

    code: str
    message: str
    param: str | None = None

    @classmethod
    def of(cls, error: HearthError) -> "Failed":
        return cls(error.code, error.message, error.param)


Event = Admitted | Delta | Vectors | Failed


def is_last(event: Event) -> bool:
    """Whether a request gets nothing more after `event`."""
    match event:
        case Delta(finish_reason=reason):
            return reason is not None
        case Vectors(last=last):
            return last
        case Failed():
            return True
        case _:
            return False


class Card(msgspec.Struct, frozen=True):
    """What a loaded engine says of itself; published in /v1/models.

    `context` is the longest request in tokens. `task` is "chat" or "embed". `dimension` is set for embedders.
    `tokenizer` is the path of a tokenizer.json that counts as the engine counts, None where there is none.
    `honours` names the sampling parameters of the OpenAI request that change this engine's answers; the gateway names
    the others in the x-ignored-params header, or refuses them where ignoring would break a promise.
    """

    task: str
    description: str
    context: int
    dimension: int | None = None
    tokenizer: str | None = None
    honours: frozenset[str] = frozenset()
    device: str = "cpu"
    precision: str | None = None


Progress = Callable[[str], None]
"""Tells the supervisor what loading is at, and that it is alive."""


class Engine(Protocol):
    """Contract: `load` first and once, `close` last and idempotent; every other method only between the two."""

    def load(self, progress: Progress) -> Card:
        """Bring the weights in. Blocks, may take minutes. Raises with a sentence that names the file at fault."""
        ...

    def submit(self, key: int, request: Request) -> Admitted:
        """Queue a request under a key that is free. Does not compute: tokenising and checking only.

        Raises a HearthError where the request cannot be served; the engine then holds nothing of it.
        """
        ...

    def step(self) -> list[tuple[int, Event]]:
        """One unit of work over all queued requests, about 100 ms at most, so that `cancel` is heard soon.

        Returns what became of them; a request's events come in order and end with exactly one `is_last`. A fault of
        one request is its `Failed` event; raising means the engine is broken and its process is replaced.
        """
        ...

    def cancel(self, key: int) -> None:
        """Forget a request; it gets no more events. Idempotent; an unknown key is no fault (it may just have ended)."""
        ...

    @property
    def busy(self) -> bool:
        """Whether `step` has work."""
        ...

    def close(self) -> None:
        """Let everything go."""
        ...
