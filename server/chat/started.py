"""The first thing a turn tells."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.knowledge import Hit


@dataclass
class Started:
    """The turn was admitted; nothing before this point cost the model anything.

    `prompt_tokens` of a model on another server are known when its answer ends: read them then. `ids` are the prompt's
    tokens, where they were asked for.
    """

    prompt_tokens: int
    hits: Sequence[Hit] = ()
    ids: Sequence[int] = ()
