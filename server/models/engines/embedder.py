"""The embedding engine: length-sorted batches over an encoder, short requests before long ones. Workers only."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from config.model import OpenVINOModel
from server.errors import ContextLengthExceeded, InvalidValue, RequestError
from server.models.engine import Admitted, Card, Embed, Event, Progress, Request, Vectors
from server.models.engines.encoder import Encoder, next_batch

_PATIENCE = 8
"""After this many batches that passed it by, a request goes first, however long it is."""

_COMPANY_TOKENS = 512
"""A request with less to do than this takes others' rows along, up to here: many queries at once become one batch."""


@dataclass
class _Running:
    """Rows still to do, shortest first, with their place in the request."""

    rows: list[tuple[int, list[int]]]
    passed_by: int = field(default=0)


class EmbedEngine:
    """Serves Embed requests; a one-line query does not wait for the end of a bulk request."""

    def __init__(self, spec: OpenVINOModel, cache: Path) -> None:
        self._spec = spec
        self._cache = cache
        self._running: dict[int, _Running] = {}

    def load(self, progress: Progress) -> Card:
        progress("building the encoder")
        self._encoder = Encoder(self._spec.source.folder, self._cache, self._spec.precision, self._spec.threads)
        self._encoder.encode([self._encoder.framed([])])
        return Card(
            task="embed",
            description="Turns texts into unit vectors for search by meaning.",
            context=self._encoder.window,
            dimension=self._encoder.shape.hidden,
            tokenizer=str(self._encoder.tokenizer_file),
            precision=self._encoder.precision,
        )

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Embed):
            raise RequestError("This model is for embeddings, not for chat.", param="model")
        rows = self._rows(request)
        if not rows:
            raise InvalidValue("There is nothing to embed.", param="input")
        longest = max(map(len, rows))
        if longest > self._encoder.window:
            raise ContextLengthExceeded.of(self._encoder.window, longest, what="input", param="input")
        self._running[key] = _Running(sorted(enumerate(rows), key=lambda row: len(row[1])))
        return Admitted(sum(map(len, rows)))

    def _rows(self, request: Embed) -> list[list[int]]:
        if request.texts is not None:
            return self._encoder.ids(request.texts)
        size = self._encoder.shape.vocabulary
        given = request.tokens or []
        for at, ids in enumerate(given):
            if not all(0 <= token < size for token in ids):
                raise InvalidValue(f"A token id is not in this model's vocabulary of {size}.", param=f"input[{at}]")
        return [self._encoder.framed(ids) for ids in given]

    def step(self) -> list[tuple[int, Event]]:
        taken = self._take()
        vectors = self._encoder.encode([row for _, _, row in taken]).astype("<f4", copy=False)
        events: list[tuple[int, Event]] = []
        for key in dict.fromkeys(key for key, _, _ in taken):
            mine = [at for at, (owner, _, _) in enumerate(taken) if owner == key]
            last = not self._running[key].rows
            if last:
                del self._running[key]
            data = np.ascontiguousarray(vectors[mine]).tobytes()
            events.append((key, Vectors([taken[at][1] for at in mine], data, last)))
        return events

    def _take(self) -> list[tuple[int, int, list[int]]]:
        """The next batch as (key, place, ids).

        The most urgent request leads. Others fill a small batch with rows no longer than its own, so that they cost it
        no padding.
        """
        leader, *others = sorted(self._running, key=self._urgency)
        taken = self._taken(leader, next_batch([len(row) for _, row in self._running[leader].rows]))
        longest = len(taken[-1][2])
        for key in others:
            fitting = sum(len(row) <= longest for _, row in self._running[key].rows)
            taken += self._taken(key, min(fitting, max(0, _COMPANY_TOKENS // longest - len(taken))))
        served = {key for key, _, _ in taken}
        for key, running in self._running.items():
            running.passed_by = 0 if key in served else running.passed_by + 1
        return taken

    def _taken(self, key: int, count: int) -> list[tuple[int, int, list[int]]]:
        running = self._running[key]
        rows, running.rows = running.rows[:count], running.rows[count:]
        return [(key, place, row) for place, row in rows]

    def _urgency(self, key: int) -> tuple[bool, int, int]:
        running = self._running[key]
        return running.passed_by < _PATIENCE, len(running.rows), key

    def cancel(self, key: int) -> None:
        self._running.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self) -> None:
        self._running.clear()
