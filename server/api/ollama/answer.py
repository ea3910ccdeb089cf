"""One answer as Ollama's wire has it: lines of JSON or a whole, with the times it took."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from server.api.chat_calls import arguments, whole
from server.api.moment import moment
from server.api.ollama.wire import OllamaCall, OllamaChatReply, OllamaFunction, OllamaGenerateReply, OllamaSaid
from server.api.turns import Count, Turn, added
from server.chat import Part, Started
from server.models.tool_formats import CallArguments, CallStart

_encoder = msgspec.json.Encoder()

Line = OllamaChatReply | OllamaGenerateReply
Write = Callable[..., Line]
"""Makes a line of what was said: of a chat or of a prompt's answer."""


def chat_line(said: OllamaSaid, **told: Any) -> OllamaChatReply:
    return OllamaChatReply(message=said, **told)


def prompt_line(said: OllamaSaid, **told: Any) -> OllamaGenerateReply:
    return OllamaGenerateReply(response=said.content, thinking=said.thinking, **told)


class Answer:
    """Begun when its request arrived, `taken` when the model had taken it. `thinks` false leaves thinking out."""

    def __init__(self, model: str, write: Write, *, thinks: bool = True) -> None:
        self.thinks = thinks
        self._arrived = time.perf_counter_ns()
        self._taken = self._first = 0
        self._model = model
        self._write = write
        self._count = Count()
        self._calls: list[CallStart | CallArguments] = []
        self._reason = "stop"

    def taken(self) -> None:
        self._taken = time.perf_counter_ns()

    def loaded(self) -> Line:
        """The answer to nothing: the model is in memory."""
        elapsed = time.perf_counter_ns() - self._arrived
        return self._line(OllamaSaid("assistant", ""), True, done_reason="load", total_duration=elapsed)

    async def whole(self, turn: Turn, started: Started) -> Line:
        async with aclosing(turn):
            parts = [part async for step in turn for part in self._read(added(step))]
        said = OllamaSaid("assistant", "")
        self._fill(said, parts)
        self._call(said)
        return self._last(said, started)

    async def lines(self, turn: Turn, started: Started) -> AsyncGenerator[bytes, None]:
        async with aclosing(turn):
            async for step in turn:
                said = OllamaSaid("assistant", "")
                if self._fill(said, self._read(added(step))):
                    yield _encoded(self._line(said, False))
        said = OllamaSaid("assistant", "")
        if self._call(said):
            yield _encoded(self._line(said, False))
        yield _encoded(self._last(OllamaSaid("assistant", ""), started))

    def _read(self, parts: list[Part]) -> list[Part]:
        """Counts the parts, and keeps the calls: their arguments are told as objects, and so when they are whole."""
        self._count.add(parts)
        if not self._first and self._count.written:
            self._first = time.perf_counter_ns()
        for part in parts:
            self._calls += part.calls
            self._reason = "length" if part.finish_reason == "length" else self._reason
        return parts

    def _fill(self, said: OllamaSaid, parts: list[Part]) -> bool:
        """Whether the parts say anything."""
        said.content = "".join(part.text for part in parts)
        thinking = "".join(part.reasoning for part in parts) if self.thinks else ""
        if thinking:
            said.thinking = thinking
        return bool(said.content or thinking)

    def _call(self, said: OllamaSaid) -> bool:
        """Whether the answer calls tools."""
        if not self._calls:
            return False
        said.tool_calls = [
            OllamaCall(OllamaFunction(call.function.name, arguments(call.function.arguments)), call.id)
            for call in whole(self._calls)
        ]
        return True

    def _last(self, said: OllamaSaid, started: Started) -> Line:
        now = time.perf_counter_ns()
        first = self._first or now
        return self._line(
            said,
            True,
            done_reason=self._reason,
            total_duration=now - self._arrived,
            load_duration=self._taken - self._arrived,
            prompt_eval_count=started.prompt_tokens,
            prompt_eval_duration=first - self._taken,
            eval_count=self._count.written,
            eval_duration=now - first,
        )

    def _line(self, said: OllamaSaid, done: bool, **told: Any) -> Line:
        return self._write(said, model=self._model, created_at=moment(time.time()), done=done, **told)


def _encoded(line: Line) -> bytes:
    return _encoder.encode(line) + b"\n"
