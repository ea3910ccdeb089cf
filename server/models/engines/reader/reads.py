"""What calls and structured answers need of the models: spans of texts, and vectors that are kept. Workers only."""

from collections.abc import Generator, Sequence

import numpy as np
from numpy.typing import NDArray

from server.models.engine import Passage
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.reader.deciding import Calibration
from server.models.engines.reader.nearness import shares
from server.models.engines.reader.reading import Kept, Reading
from server.models.engines.reader.spans import Span, SpanReader


class EncoderReads:
    """Each method is one step of the engine, or yields once a step. Without a span reader no span is ever found."""

    def __init__(
        self, encoder: Encoder, reader: SpanReader | None, calibration: Calibration | None, threshold: float
    ) -> None:
        self._encoder = encoder
        self._reader = reader
        self._calibration = calibration
        self._threshold = threshold
        self._kept = Kept()

    def spans(self, question: str, texts: Sequence[str], most: int) -> list[Span]:
        return [] if self._reader is None else self._reader.read(question, texts, most)

    def answering(self, question: str, texts: Sequence[str]) -> Generator[None, None, list[Span]]:
        if self._calibration is None:
            return []
        near = shares(question, texts, [None] * len(texts)).own
        order = sorted(range(len(texts)), key=lambda place: -near[place])  # what is too much to be read comes last
        passages = [Passage(texts[place], "", 0.5) for place in order]
        ids = self._encoder.ids([question])[0]
        reading = Reading.of(question, ids, passages, self._encoder, self._reader, self._kept)
        while not reading.done:
            reading.step(self._encoder, self._reader)
            yield
        if not reading.units:
            return []
        sure, spans = reading.sureness(self._calibration)
        surest = sorted(range(len(sure)), key=lambda place: -sure[place])
        found = [span for place in surest if sure[place] >= self._threshold and (span := spans[place]) is not None]
        return [span._replace(passage=order[span.passage]) for span in found]

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [texts, hidden]; of a text longer than the window by its beginning."""
        fresh = sorted({text for text in texts if self._kept.get(text) is None}, key=len)
        if fresh:
            rows = [ids[: self._encoder.window] for ids in self._encoder.ids(fresh)]
            for text, vector in zip(fresh, self._encoder.encode(rows), strict=True):
                self._kept.put(text, vector)
        found = [self._kept.get(text) for text in texts]
        return np.stack([vector for vector in found if vector is not None])
