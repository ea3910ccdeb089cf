"""What a client asks of one turn, after the wire and before any model: plain values."""

from typing import Any, Literal

import msgspec

from server.knowledge import Filter, TierName
from server.models.dialect import Tools
from server.models.engine import Grammar, Message, Sampling

_NEUTRAL = Sampling()

FILE_SEARCH = "file_search"
"""The tool by which a model searches when it wants to; OpenAI's name."""


class Retrieval(msgspec.Struct, frozen=True):
    """Which knowledge a turn answers from. `collections` None stands for those of the assistant, or else for all.

    `always` searches for the last thing the user said before the model reads; `auto` gives the model a tool to search
    with, where it can call one; `never` takes the assistant's knowledge away. The rest is as in `search.Search`; None
    leaves it to the collections.
    """

    collections: tuple[str, ...] | None = None
    when: Literal["always", "auto", "never"] = "always"
    k: int | None = None
    filters: Filter | None = None
    weights: tuple[float, float] | None = None
    threshold: float = 0.0
    ranker: str | None = None
    depth: int | None = None
    tiers: tuple[TierName, ...] | None = None
    param: str = "retrieval"
    """The field of the client's request it comes from, for faults."""


class Asked(msgspec.Struct, frozen=True):
    """A conversation, or a bare `prompt` (a text, or token ids) that the model goes on with.

    `max_tokens` None leaves the length to the model, and bounds all rounds of tools together; `stop` ends the visible
    text; `options` are variables for the model's chat template; `grammar` is what the text must conform to. With
    `prompt_logprobs` the turn's first part brings the prompt's own tokens. `begun` is the beginning of the answer to a
    conversation, which the model goes on with.
    """

    messages: list[Message] = []
    prompt: str | list[int] | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = _NEUTRAL
    grammar: Grammar | None = None
    tools: Tools | None = None
    options: dict[str, Any] = {}
    prompt_logprobs: int | None = None
    begun: str = ""
    token_ids: bool = False
    """Whether the ids of the tokens read and written are told."""
    sent: dict[str, msgspec.Raw] | None = None
    """The fields of the client's own request, where it spoke the wire that a model on another server reads as it is."""
    retrieval: Retrieval | None = None
    """What the request says of knowledge, before what an assistant has."""
    only: str | None = None
    """The one tool of an assistant that is to be called; `tools` then has none and is forced."""
    withhold: bool = False
    """Whether an assistant's tools are not to be offered."""
    max_calls: int | None = None
    """How many calls the server may run in the turn."""
    system: str = ""
    """What the system message begins with. This and what follows, a turn adds of its assistant and its rounds."""
    served: frozenset[str] = frozenset()
    """The names among `tools` that the server runs."""
    said: list[Message] = []
    """What earlier rounds of the turn added to the conversation."""
