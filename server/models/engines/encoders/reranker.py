"""The rerank engine: how well each document answers a query, by a cross-encoder that reads both at once. Workers only.

Nogueira and Cho, Passage Re-ranking with BERT (arXiv 1901.04085). Nothing is cut: a document longer than the model
reads at once is scored in overlapping windows, and its best window's score is its own.
"""

from dataclasses import dataclass, field
from pathlib import Path

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue, RequestError
from server.models.engine import (
    Admitted,
    Card,
    Detokenize,
    Event,
    Generate,
    Progress,
    Request,
    Rerank,
    Scores,
    Spelled,
    Tokenize,
    Tokens,
)
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.encoders.rows import Rows

_LEAST_ROOM = 32
"""Tokens a query must leave for the documents, else a long one would fall into windows of a few words each."""


@dataclass
class _Ranking:
    """`second` is where the document's part begins in every row; `left` counts the windows a document still lacks."""

    second: int
    left: list[int]
    best: list[float] = field(default_factory=list)


class RerankEngine:
    """Serves Rerank requests; a short one does not wait for the end of a long one.

    A score is the sigmoid of the model's one logit, 0 to 1 and higher for a better answer. Documents longer than the
    model reads beside the query are scored by windows that share a quarter of their tokens; the best one counts.
    """

    def __init__(self, spec: LocalModel, files: Path, cache: Path) -> None:
        self._files = files
        self._spec = spec
        self._cache = cache
        self._rows = Rows()
        self._rankings: dict[int, _Ranking] = {}

    def load(self, progress: Progress) -> Card:
        progress("building the encoder")
        self._encoder = Encoder(self._files, self._cache, self._spec.precision, self._spec.threads, "rerank")
        if self._encoder.window <= self._encoder.frame:
            raise ValueError(f"{self._files / 'config.json'}: {self._encoder.window} positions hold no pair of texts")
        self._encoder.score([self._encoder.paired([], [])], [self._encoder.second([])])
        self._rows = Rows(self._encoder.shape.weights)
        return Card(
            task="rerank",
            description="Scores how well documents answer a query; long ones by their best window.",
            context=self._encoder.window,
            tokenizer=str(self._encoder.tokenizer_file),
            precision=self._encoder.precision,
            family=self._encoder.shape.family,
            weights_bytes=self._encoder.weights_bytes,
        )

    def submit(self, key: int, request: Request) -> Admitted:
        """The tokens of `Admitted` are those read: the query once a window.

        Raises ContextLengthExceeded where the query leaves too little room for the documents.
        """
        if not isinstance(request, Rerank):
            raise RequestError("This model is for reranking alone.", param="model")
        if not request.documents:
            raise InvalidValue("There are no documents to rank.", param="documents")
        query, *documents = self._encoder.bare([request.query, *request.documents])
        room = self._encoder.window - self._encoder.frame - len(query)
        if room < (least := min(_LEAST_ROOM, max(map(len, documents)))):
            tokens = len(query) + self._encoder.frame + least
            raise ContextLengthExceeded.of(
                self._encoder.window, tokens, what="query with room for a document", param="query"
            )
        cut = [windows(ids, room) for ids in documents]
        rows = [(place, self._encoder.paired(query, part)) for place, parts in enumerate(cut) for part in parts]
        self._rankings[key] = _Ranking(self._encoder.second(query), [len(parts) for parts in cut], [0.0] * len(cut))
        self._rows.add(key, rows)
        return Admitted(sum(len(row) for _, row in rows))

    def tokenize(self, request: Tokenize) -> Tokens:
        return self._encoder.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._encoder.detokenize(request)

    def count(self, request: Generate) -> int:
        raise RequestError("This model is for reranking alone.", param="model")

    def step(self) -> list[tuple[int, Event]]:
        taken = self._rows.take()
        found = self._encoder.score([row.ids for row in taken], [self._rankings[row.key].second for row in taken])
        whole: dict[int, list[int]] = {row.key: [] for row in taken}
        for row, score in zip(taken, found, strict=True):
            ranking = self._rankings[row.key]
            ranking.best[row.place] = max(ranking.best[row.place], score)
            ranking.left[row.place] -= 1
            if not ranking.left[row.place]:
                whole[row.key].append(row.place)
        events: list[tuple[int, Event]] = []
        for key, places in whole.items():
            ranking, last = self._rankings[key], self._rows.ended(key)
            if last:
                del self._rankings[key]
            if places:
                events.append((key, Scores(places, [ranking.best[place] for place in places], last)))
        return events

    def cancel(self, key: int) -> None:
        self._rows.drop(key)
        self._rankings.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    def close(self) -> None:
        self._rows.clear()
        self._rankings.clear()


def windows(ids: list[int], room: int) -> list[list[int]]:
    """`ids` whole where they fit, else windows of `room` ids, evenly spread, a quarter or more shared with the next."""
    if len(ids) <= room:
        return [ids]
    stride = max(1, room - room // 4)
    steps = -(-(len(ids) - room) // stride)
    starts = [(len(ids) - room) * step // steps for step in range(steps + 1)]
    return [ids[start : start + room] for start in starts]
