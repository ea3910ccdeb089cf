"""What a client asks of one turn, after the wire and before any model: plain values."""

from typing import Any

import msgspec

from server.models.dialect import Tools
from server.models.engine import Grammar, Message, Sampling

_NEUTRAL = Sampling()


class Asked(msgspec.Struct, frozen=True):
    """A conversation, or a bare `prompt` (a text, or token ids) that the model goes on with.

    `max_tokens` None leaves the length to the model; `stop` ends the visible text; `options` are variables for the
    model's chat template; `grammar` is what the text must conform to. With `prompt_logprobs` the turn's first part
    brings the prompt's own tokens. `begun` is the beginning of the answer to a conversation, which the model goes on
    with.
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
