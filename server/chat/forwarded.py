"""A turn that another server answers: what it is asked, and its pieces as Parts. Knows no HTTP."""

from collections.abc import Mapping
from typing import Any

from server.chat.answer import Marks, Part
from server.chat.asked import Asked
from server.chat.mixed import MIXED
from server.errors import UnsupportedParameter
from server.models.remote import Forwarded, Piece


def forwarded(asked: Asked, grounds: str | None, defaults: Mapping[str, Any]) -> Forwarded:
    """What the server is asked; `grounds` are the passages found, as its system message tells them; `defaults` hold
    where the client's own request says nothing.

    Raises UnsupportedParameter for what OpenAI's wire cannot ask.
    """
    if asked.begun:
        raise UnsupportedParameter("This model goes on with no answer that is begun already.", param="messages")
    if asked.prompt_logprobs is not None:
        raise UnsupportedParameter("This model tells nothing of the prompt's own tokens.", param="echo")
    if asked.token_ids:
        raise UnsupportedParameter("This model's server is not asked for token ids.", param="return_token_ids")
    return Forwarded(
        messages=[*MIXED.restored(asked.messages), *asked.said],
        prompt=asked.prompt,
        max_tokens=asked.max_tokens,
        stop=asked.stop,
        sampling=asked.sampling,
        grammar=asked.grammar,
        tools=asked.tools,
        options=asked.options,
        sent=asked.sent,
        grounds=grounds,
        system=asked.system,
        defaults=defaults,
        rewritten=bool(asked.served or asked.said) or MIXED.restored(asked.messages) is not asked.messages,
    )


def part(piece: Piece, marks: Marks | None = None) -> Part:
    """`marks` find where the answer names passages."""
    return Part(
        piece.text,
        piece.tokens,
        () if marks is None else marks.feed(piece.text),
        finish_reason=piece.finish_reason,
        reasoning=piece.reasoning,
        calls=piece.calls,
        logprobs=piece.logprobs,
        reasoning_tokens=piece.reasoning_tokens,
        cached_tokens=piece.cached_tokens,
        annotations=piece.annotations,
    )
