"""The embedding engine: texts or token ids to unit vectors, in batches over an encoder. Workers only."""

from pathlib import Path

import numpy as np

from config.model import LocalModel
from server.errors import ContextLengthExceeded, InvalidValue, RequestError
from server.models.engine import (
    Admitted,
    Card,
    Detokenize,
    Embed,
    Event,
    Generate,
    Progress,
    Request,
    Spelled,
    Tokenize,
    Tokens,
    Vectors,
    check_tokens,
)
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.encoders.rows import Rows
from server.models.identity import identity
from server.models.prompts import Prompts


class EmbedEngine:
    """Serves Embed requests; a one-line query does not wait for the end of a bulk request."""

    def __init__(self, spec: LocalModel, files: Path, cache: Path) -> None:
        self._files = files
        self._spec = spec
        self._cache = cache
        self._rows = Rows()

    def load(self, progress: Progress) -> Card:
        progress("building the encoder")
        self._encoder = Encoder(self._files, self._cache, self._spec.precision, self._spec.threads)
        self._encoder.encode([self._encoder.framed([])])
        self._rows = Rows(self._encoder.shape.weights)
        self._prompts = Prompts.of(self._spec, self._files)
        return Card(
            task="embed",
            description=f"Turns texts into unit vectors for search by meaning{self._advice()}.",
            context=self._encoder.window,
            dimension=self._encoder.shape.hidden,
            prompts=self._prompts.by_side,
            tokenizer=str(self._encoder.tokenizer_file),
            precision=self._encoder.precision,
            family=self._encoder.shape.family,
            weights_bytes=self._encoder.weights_bytes,
            identity=identity(self._files, self._prompts.document),
        )

    def _advice(self) -> str:
        """The length of sentence_bert_config.json is told and not enforced: there, longer texts are cut in silence."""
        length = self._encoder.advised
        return (
            f"; its authors advise texts of up to {length} tokens" if length and length < self._encoder.window else ""
        )

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Embed):
            raise RequestError("This model is for embeddings alone.", param="model")
        rows = self._asked(request)
        if not rows:
            raise InvalidValue("There is nothing to embed.", param="input")
        longest = max(map(len, rows))
        if longest > self._encoder.window:
            raise ContextLengthExceeded.of(self._encoder.window, longest, what="input", param="input")
        self._rows.add(key, enumerate(rows))
        return Admitted(sum(map(len, rows)))

    def _asked(self, request: Embed) -> list[list[int]]:
        before = self._prompts.before(request.side)
        if request.texts is not None:
            return self._encoder.ids([f"{before}{text}" for text in request.texts] if before else request.texts)
        given = request.tokens or []
        for at, ids in enumerate(given):
            check_tokens(ids, self._encoder.shape.vocabulary, f"input[{at}]")
        [start] = self._encoder.bare([before])
        return [self._encoder.framed([*start, *ids]) for ids in given]

    def tokenize(self, request: Tokenize) -> Tokens:
        return self._encoder.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._encoder.detokenize(request)

    def count(self, request: Generate) -> int:
        raise RequestError("This model is for embeddings alone.", param="model")

    def step(self) -> list[tuple[int, Event]]:
        taken = self._rows.take()
        vectors = self._encoder.encode([row.ids for row in taken]).astype("<f4", copy=False)
        events: list[tuple[int, Event]] = []
        for key in dict.fromkeys(row.key for row in taken):
            mine = [at for at, row in enumerate(taken) if row.key == key]
            data = np.ascontiguousarray(vectors[mine]).tobytes()
            events.append((key, Vectors([taken[at].place for at in mine], data, self._rows.ended(key))))
        return events

    def cancel(self, key: int) -> None:
        self._rows.drop(key)

    @property
    def busy(self) -> bool:
        return bool(self._rows)

    def close(self) -> None:
        self._rows.clear()
