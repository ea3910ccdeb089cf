"""One request of a model, timed from its start to its end and told to the telemetry however it ends."""

import time
from types import TracebackType
from typing import Self

from server.errors import HearthError
from server.telemetry import Telemetry


class Measured:
    """A context around one request. `operation` is one of the conventions' words, such as chat or embeddings.

    `read` and `written` are its tokens so far. One that leaves without a fault and not `finished` counts as left by its
    client.
    """

    def __init__(self, telemetry: Telemetry, model: str, operation: str) -> None:
        self._telemetry, self._model, self._operation = telemetry, model, operation
        self._started = time.perf_counter()
        self._first: float | None = None
        self.read = self.written = 0
        self.finished = False

    def began(self) -> None:
        """The first token has come; telling it again changes nothing."""
        if self._first is None:
            self._first = time.perf_counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        now = time.perf_counter()
        code = error.code if isinstance(error, HearthError) else None
        if code is None and not self.finished:
            self._telemetry.cancelled(self._model)
        self._telemetry.request.model(now - self._started, self._model, self._operation, code)
        if self.read:
            self._telemetry.tokens(self._model, read=self.read, written=self.written)
        if self._first is None:
            return
        self._telemetry.first_token.model(self._first - self._started, self._model, self._operation)
        if self.written > 1:
            each = (now - self._first) / (self.written - 1)
            self._telemetry.per_token.model(each, self._model, self._operation)
