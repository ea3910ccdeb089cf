"""A deterministic engine for trying clients and for tests: it sends the last user message back, token by token.

It is no model and does not pretend to be one.
"""

import re
import time
from dataclasses import dataclass

from config.model import EchoModel
from server.errors import ContextLengthExceeded, RequestError, UnsupportedParameter
from server.models.engine import (
    Admitted,
    Card,
    Delta,
    Detokenize,
    Event,
    Generate,
    Progress,
    Request,
    Spelled,
    Tokenize,
    Tokens,
)

_token = re.compile(r"\s*\S+|\s+")
_LONGEST_NAP = 0.02


def tokens(text: str) -> list[str]:
    """A token is a word with the white space before it; joined they are the text."""
    return _token.findall(text)


@dataclass
class _Running:
    tokens: list[str]
    limit: int
    due: float
    sent: int = 0


class EchoEngine:
    """One token per request and step."""

    def __init__(self, spec: EchoModel) -> None:
        self._context = spec.context
        self._pause = 1.0 / spec.tokens_per_second if spec.tokens_per_second else 0.0
        self._running: dict[int, _Running] = {}

    def load(self, progress: Progress) -> Card:
        return Card(
            task="chat",
            description="Not a model: it repeats the last user message, for trying clients.",
            context=self._context,
        )

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Generate):
            raise RequestError("This model is for chat, not for embeddings.", param="model")
        counts = self.count(request)
        if counts > self._context:
            raise ContextLengthExceeded.of(self._context, counts)
        said = next((message.text for message in reversed(request.messages) if message.role == "user"), None)
        if said is None:
            raise RequestError("There is no user message to repeat.", param="messages")
        words = tokens(said)
        limit = len(words) if request.max_tokens is None else min(len(words), request.max_tokens)
        self._running[key] = _Running(words, limit, time.monotonic() + self._pause)
        return Admitted(counts)

    def count(self, request: Generate) -> int:
        return sum(len(tokens(message.text)) for message in request.messages)

    def tokenize(self, request: Tokenize) -> Tokens:
        raise UnsupportedParameter("This model is no model and has no token ids.", param="model")

    def detokenize(self, request: Detokenize) -> Spelled:
        raise UnsupportedParameter("This model is no model and has no token ids.", param="model")

    def step(self) -> list[tuple[int, Event]]:
        now = time.monotonic()
        events: list[tuple[int, Event]] = [
            (key, self._next(running, now)) for key, running in self._running.items() if running.due <= now
        ]
        for key, event in events:
            if isinstance(event, Delta) and event.finish_reason is not None:
                del self._running[key]
        if not events and self._running:
            soonest = min(running.due for running in self._running.values())
            time.sleep(max(0.0, min(_LONGEST_NAP, soonest - now)))
        return events

    def _next(self, running: _Running, now: float) -> Delta:
        running.due = max(now, running.due + self._pause)
        text = running.tokens[running.sent] if running.sent < running.limit else ""
        running.sent += 1
        done = running.sent >= running.limit
        reason = ("stop" if running.limit == len(running.tokens) else "length") if done else None
        return Delta(text, 1 if text else 0, finish_reason=reason)

    def cancel(self, key: int) -> None:
        self._running.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        self._running.clear()
