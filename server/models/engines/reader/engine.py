"""The embedded default chat model: it quotes the sentence that answers, or says that the passages hold none.

It generates nothing: every word of an answer, and of a call's arguments, is either quoted or one of the fixed phrases
of this room. Workers only.
"""

import logging
from collections.abc import Generator, Sequence
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.model import ReaderModel
from server.errors import ContextLengthExceeded, RequestError
from server.models.abilities import ABILITIES
from server.models.engine import (
    Admitted,
    Card,
    Delta,
    Detokenize,
    Event,
    Generate,
    Passage,
    Progress,
    Request,
    Spelled,
    Tokenize,
    Tokens,
    ToolCall,
)
from server.models.engines.encoders.encoder import Encoder
from server.models.engines.reader import calling, listing, smalltalk, structured
from server.models.engines.reader.conversation import Asked, asked
from server.models.engines.reader.deciding import Calibration
from server.models.engines.reader.fields import Schema
from server.models.engines.reader.quoting import LONGEST_QUOTE, Quote, Telling, quoting, widened
from server.models.engines.reader.reading import Kept, Reading
from server.models.engines.reader.reads import EncoderReads
from server.models.engines.reader.spans import WEIGHTS, Span, SpanReader

log = logging.getLogger(__name__)

Job = Generator[None, None, Telling]
"""The work on one request; it yields once a step."""

NEAR_ENOUGH = 0.38
"""The threshold of nearness where the span reader's weights are not for this encoder; measured on the reading set."""

WHO_I_AM = (
    "I am Hearth's built-in reader. I answer questions by quoting the best sentence of the documents this server "
    "knows, with its source, and I can call tools with what you tell me; I cannot chat, write or reason. Ask me "
    "something the documents say. To chat, declare a "
    "generative model under `models` in the recipe, on an engine that your Hearth has, and send its id as `model`."
)
QUOTES = "Quotes the sentence of the attached knowledge that answers, with its source; generates nothing."
QUOTES_THE_NEAREST = "Quotes the nearest sentence of the attached knowledge with its source; generates nothing."
NO_KNOWLEDGE = (
    "I can only quote documents, and no collection is attached to this model id. Ask an assistant of the recipe that "
    "has `knowledge`; its id stands in the list of models."
)
NOT_THERE = "I did not find that in these documents."
NOTHING_READ = "I did not find that: the collection holds no passage on it."


class ReaderEngine:
    """Encodes and reads in steps of about 1000 tokens, then sends one word a request and step."""

    def __init__(self, spec: ReaderModel, files: Path, cache: Path, trained: Path = WEIGHTS) -> None:
        """`trained` are the span reader's weights."""
        self._files = files
        self._trained = trained
        self._spec = spec
        self._cache = cache
        self.spans: SpanReader | None = None
        """None where the encoder is not the one that its weights were trained on."""
        self._calibration: Calibration | None = None
        self._threshold = NEAR_ENOUGH
        self._kept = Kept()
        self._jobs: dict[int, Job] = {}
        self._telling: dict[int, Telling] = {}

    def load(self, progress: Progress) -> Card:
        progress("building the encoder")
        self._encoder = Encoder(self._files, self._cache, self._spec.precision, self._spec.threads)
        self._examples = self._encoder.encode(self._encoder.ids(smalltalk.EXAMPLES))
        progress("building the span reader")
        self._load_spans()
        if self._spec.threshold is not None:
            self._threshold = self._spec.threshold
        self.reads = EncoderReads(self._encoder, self.spans, self._calibration, self._threshold)
        return Card(
            task="chat",
            description=QUOTES if self.spans else QUOTES_THE_NEAREST,
            context=self._encoder.window,
            tokenizer=str(self._encoder.tokenizer_file),
            precision=self._encoder.precision,
            family=self._encoder.shape.family,
            honours=ABILITIES["reader"],
        )

    def _load_spans(self) -> None:
        """The weights that ship with Hearth read with the encoder they were trained on, and with no other."""
        reader = SpanReader.of(self._encoder, self._trained)
        if reader is None:
            log.warning(
                "%s is not the encoder that the span reader was trained on: it only quotes what is near", self._files
            )
            return
        self.spans = reader
        self._calibration = msgspec.convert(reader.metadata["calibration"], Calibration)
        self._threshold = self._calibration.threshold

    # ---- taking a question --------------------------------------------------------------------------------------

    def submit(self, key: int, request: Request) -> Admitted:
        if not isinstance(request, Generate):
            raise RequestError("This model is for chat, not for embeddings.", param="model")
        about, ids = self._asked(request)
        if len(ids) > self._encoder.window:
            raise ContextLengthExceeded.of(self._encoder.window, len(ids))
        schema = None if request.grammar is None else structured.schema_of(request.grammar)
        calling.check(request.tools)
        reading = self._units(about.question, ids, about.passages)
        self._jobs[key] = self._job(about, reading, request, schema)
        return Admitted(self._counted(ids, reading))

    def _asked(self, request: Generate) -> tuple[Asked, list[int]]:
        about = asked(request)
        if not about.question:
            raise RequestError("There is no user message with a question.", param="messages")
        return about, self._encoder.ids([about.question])[0]

    def _counted(self, ids: list[int], reading: Reading) -> int:
        return len(ids) + sum(self._encoder.count(passage.text) for passage in reading.passages)

    def count(self, request: Generate) -> int:
        about, ids = self._asked(request)
        return self._counted(ids, self._units(about.question, ids, about.passages))

    def tokenize(self, request: Tokenize) -> Tokens:
        """The ids its encoder reads a question or a passage as."""
        return self._encoder.tokenize(request)

    def detokenize(self, request: Detokenize) -> Spelled:
        return self._encoder.detokenize(request)

    def _units(self, question: str, ids: list[int], passages: Sequence[Passage]) -> Reading:
        return Reading.of(question, ids, passages, self._encoder, self.spans, self._kept)

    # ---- steps --------------------------------------------------------------------------------------------------

    def step(self) -> list[tuple[int, Event]]:
        if self._jobs:
            key, job = next(iter(self._jobs.items()))
            try:
                next(job)
            except StopIteration as done:
                del self._jobs[key]
                self._telling[key] = done.value
        events = [(key, self._say(telling)) for key, telling in self._telling.items()]
        for key, delta in events:
            if delta.finish_reason is not None:
                del self._telling[key]
        return list(events)

    def _say(self, telling: Telling) -> Delta:
        """The next word. Tokens are counted word by word, which is how they are sent; a call is sent whole."""
        tokens = self._encoder.count(telling.words[telling.sent] if telling.call is None else telling.call.arguments)
        if telling.limit is not None and tokens > telling.limit:
            return Delta(finish_reason="length")
        if telling.call is not None:
            return Delta(tokens=tokens, call=telling.call, finish_reason="stop")
        if telling.limit is not None:
            telling.limit -= tokens
        word, citations = telling.next()
        return Delta(
            word,
            tokens,
            citations=citations,
            finish_reason="stop" if telling.sent == len(telling.words) else None,
            refusal=telling.refusal,
        )

    # ---- answering ----------------------------------------------------------------------------------------------

    def _job(self, about: Asked, reading: Reading, request: Generate, schema: Schema | None) -> Job:
        """A call where one is asked for, else an answer in the form that is wanted."""
        limit = request.max_tokens
        if request.tools and not about.brought and (request.must_call or not smalltalk.asks_nothing(about.question)):
            tools, forced = request.tools, request.must_call
            outcome = yield from calling.called(
                request.messages, about.question, tools, forced, self.reads, date.today()
            )
            if isinstance(outcome, calling.Call):
                telling = Telling.of("", limit)
                telling.call = ToolCall("", outcome.name, outcome.arguments)
                return telling
            if outcome is not None:
                return Telling.of(outcome.text, limit)
        if schema is not None and not structured.is_free(schema):
            texts = [passage.text for passage in about.passages]
            told: str | structured.Refused = structured.Refused("")
            if not about.given and structured.states(about.question):
                told = yield from structured.answered(schema, about.question, (), self.reads, date.today())
            if not isinstance(told, str):
                told = yield from structured.answered(schema, about.question, texts, self.reads, date.today())
            telling = Telling.of(told if isinstance(told, str) else told.text, limit)
            telling.refusal = not isinstance(told, str)
            return telling
        while not reading.done:
            reading.step(self._encoder, self.spans)
            yield
        if schema is not None:
            return Telling.of(structured.free(self._quoted(reading), schema), limit)
        return self._answer(about, reading, request)

    def _answer(self, about: Asked, reading: Reading, request: Generate) -> Telling:
        limit = request.max_tokens
        if about.brought:
            return quoting(reading, self._of_results(reading, about.brought), about.given, limit)
        if self._is_small_talk(reading):
            return Telling.of(WHO_I_AM, limit)
        if not reading.passages:
            return Telling.of(NO_KNOWLEDGE if request.passages is None else NOTHING_READ, limit)
        found = self._found(reading)
        if not found:
            return Telling.of(_not_there(len(reading.passages)), limit)
        return quoting(reading, found, about.given, limit)

    def _of_results(self, reading: Reading, brought: int) -> list[Quote]:
        """What tools brought, whole where it is short, else the sentence of each that is surest to answer."""
        sure, spans = self._sureness(reading) if reading.units else (np.zeros(0), [])
        quotes = []
        for at, passage in enumerate(reading.passages[:brought]):
            units = [place for place, (of, _) in enumerate(reading.units) if of == at]
            if len(passage.text) <= LONGEST_QUOTE or not units:
                quotes.append(Quote(at, 0, min(len(passage.text), LONGEST_QUOTE), None))
            else:
                quotes.append(self._quote(reading, max(units, key=lambda place: sure[place]), spans))
        return quotes

    def _quoted(self, reading: Reading) -> structured.Quoted:
        found = self._found(reading)
        if not found:
            return structured.Quoted(None, None)
        passage = reading.passages[found[0].passage]
        return structured.Quoted(passage.text[found[0].start : found[0].end], passage.source or None)

    def _is_small_talk(self, reading: Reading) -> bool:
        if len(reading.question.split()) > smalltalk.LONGEST:
            return False
        if smalltalk.asks_nothing(reading.question):
            return True
        return float((self._examples @ reading.vectors[0]).max()) >= smalltalk.NEAR

    def _found(self, reading: Reading) -> list[Quote]:
        """What to quote: the surest sentence, or several where the question asks so; empty where none answers."""
        if not reading.units:
            return []
        sure, spans = self._sureness(reading)
        if listing.asks_for_several(reading.question):
            places = listing.several(reading, sure.tolist(), spans, self._threshold)
        else:
            places = [best] if sure[best := int(sure.argmax())] >= self._threshold else []
        quotes: list[Quote] = []
        for place in places:
            quote = self._quote(reading, place, spans)
            if not any(
                quote.passage == one.passage and quote.start < one.end and one.start < quote.end for one in quotes
            ):
                quotes.append(quote)
        return quotes

    def _quote(self, reading: Reading, place: int, spans: Sequence[Span | None]) -> Quote:
        first, last = widened(reading, reading.nearness(), place, spans[place])
        at, unit = reading.units[first]
        return Quote(at, unit.start, reading.units[last][1].end, spans[place])

    def _sureness(self, reading: Reading) -> tuple[NDArray[np.float64], list[Span | None]]:
        """How surely each unit answers, 0 to 1, and the words in it that do."""
        if self._calibration is None:
            return reading.nearness(), [None] * len(reading.units)
        return reading.sureness(self._calibration)

    def read(self, question: str, passages: Sequence[Passage]) -> Reading:
        """A reading of `passages` to its end, apart from all requests."""
        reading = self._units(question, self._encoder.ids([question])[0], passages)
        while not reading.done:
            reading.step(self._encoder, self.spans)
        return reading

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [texts, hidden]; of a text longer than the window by its beginning."""
        rows = [ids[: self._encoder.window] for ids in self._encoder.ids(texts)]
        return np.concatenate([self._encoder.encode([row]) for row in rows])

    def cancel(self, key: int) -> None:
        self._jobs.pop(key, None)
        self._telling.pop(key, None)

    @property
    def busy(self) -> bool:
        return bool(self._jobs or self._telling)

    def close(self) -> None:
        self._jobs.clear()
        self._telling.clear()


def _not_there(read: int) -> str:
    which = "The passage I read is not" if read == 1 else f"None of the {read} passages I read is"
    return f"{NOT_THERE} {which} near enough to the question."
