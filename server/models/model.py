"""The gateway's handle on one model: its requests, from admission to the last event; computes nothing itself."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.model import WorkerSpec
from server.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    ServiceError,
    from_code,
)
from server.models.admission import Admission, charge_of, room
from server.models.caller import Charge
from server.models.cold_weights import Cold
from server.models.engine import (
    Admitted,
    Count,
    Counted,
    Delta,
    Detokenize,
    Embed,
    Event,
    Failed,
    Generate,
    Lookup,
    Request,
    Rerank,
    Scores,
    Spelled,
    Tokenize,
    Tokens,
    Vectors,
)
from server.models.fair_queue import Ticket
from server.models.measured import Measured
from server.models.prompts import Side
from server.models.resident import Resident
from server.telemetry import Telemetry
from server.worker import Call, CallExpired, WorkerLost, WorkerUnavailable

Told = TypeVar("Told", Tokens, Spelled, Counted)

_PATIENCE_SECONDS = 1.0
"""Clients give up on a server that is silent for long: one whose request waits longer than this hears that it does."""

_requests = msgspec.msgpack.Encoder()
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


@dataclass(frozen=True)
class Embeddings:
    """`vectors` is float32 [inputs, dimension], rows of unit length in the order of the inputs."""

    vectors: NDArray[np.float32]
    tokens: int


@dataclass(frozen=True)
class Reranked:
    """`scores`, 0 to 1, stand in the order of the documents; `tokens` counts the query once a document or window."""

    scores: list[float]
    tokens: int


class _Place(NamedTuple):
    """Where a request stands, and until when it has to be answered, by the loop's clock; None for ever."""

    ticket: Ticket | None
    until: float | None

    @property
    def waiting(self) -> Ticket | None:
        """The ticket, where its turn has not come yet."""
        return None if self.ticket is None or self.ticket.inside else self.ticket


class Model(Resident):
    """One declared model. An async context manager: entering starts its worker and does not wait for the weights.

    Requests may come from any task of the gateway's loop. `queue` bounds how many may wait for the worker.
    """

    def __init__(
        self,
        name: str,
        spec: WorkerSpec,
        *,
        queue: int,
        data: Path,
        telemetry: Telemetry,
        cold: Cold | None = None,
    ) -> None:
        super().__init__(name, spec, data, cold)
        self.created = int(time.time())
        self._admission = Admission(name, room(spec), queue)
        self._telemetry = telemetry

    @property
    def queued(self) -> int:
        """How many of the requests in flight wait for a place in the worker."""
        return self._admission.waiting

    def resize_queue(self, queue: int) -> None:
        """How many requests may wait from now on."""
        self._admission.resize(queue)

    async def generate(self, request: Generate) -> AsyncGenerator[list[Event], None]:
        """The events of one answer, those that arrived together in one list; the very first one is Admitted.

        One that has to wait long is checked meanwhile and told Admitted, so that its client hears that it was taken.
        Raises before the first event where the request cannot be served, later where the model fails under it.
        Leaving early cancels the request within one step.
        """
        charge = charge_of(request)
        with Measured(self._telemetry, self.name, "chat") as measured, self._place(charge) as place:
            early = None if place.waiting is None else await self._early(request, place.waiting, place.until)
            if early is not None:
                yield [early]
            with await self._call(request, place) as call:
                async for bodies in call:
                    events = [_checked(_events.decode(body)) for body in bodies]
                    for event in events:
                        if isinstance(event, Delta):
                            measured.written += event.tokens
                            measured.finished = event.finish_reason is not None
                        elif isinstance(event, Admitted):
                            measured.read = event.prompt_tokens
                    charge.used = measured.read + measured.written
                    if measured.written:
                        measured.began()
                    if early is None or (events := [each for each in events if not isinstance(each, Admitted)]):
                        yield events

    async def _early(self, request: Generate, waiting: Ticket, until: float | None) -> Admitted | None:
        """What the worker would say of a request at once, if it has waited for a while; None where its turn came."""
        soon = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        if await self._admission.turn(waiting, soon if until is None else min(soon, until)):
            return None
        tokens = await self.count(request)
        if (card := self.card) is not None and tokens > card.context:
            raise ContextLengthExceeded.of(card.context, tokens)
        return Admitted(tokens)

    async def embed(self, inputs: Sequence[str], side: Side | None = None) -> Embeddings:
        """One vector a text. Raises as `generate` does; ContextLengthExceeded where one text is too long.

        `side` says what the texts are to a search, for models that put other words before a query than a document.
        """
        return await self._embed(Embed(texts=list(inputs), side=side), len(inputs))

    async def embed_tokens(self, tokens: Sequence[list[int]], side: Side | None = None) -> Embeddings:
        """As `embed`, for texts given as this model's token ids."""
        return await self._embed(Embed(tokens=list(tokens), side=side), len(tokens))

    async def _embed(self, request: Embed, count: int) -> Embeddings:
        started = time.perf_counter()
        tokens = 0
        rows: NDArray[np.float32] | None = None
        charge = charge_of(request)
        with self._place(charge) as place, await self._call(request, place) as call:
            async for bodies in call:
                for event in (_checked(_events.decode(body)) for body in bodies):
                    if isinstance(event, Admitted):
                        tokens = charge.used = event.prompt_tokens
                    elif isinstance(event, Vectors):
                        part = np.frombuffer(event.data, "<f4").reshape(len(event.indices), -1)
                        if rows is None:
                            rows = np.empty((count, part.shape[1]), np.float32)
                        rows[event.indices] = part
        if rows is None:
            raise ServiceError(f"model {self.name} ended an embedding without vectors")
        self._telemetry.request.model(time.perf_counter() - started, self.name, "embeddings")
        self._telemetry.tokens(self.name, read=tokens, written=0)
        return Embeddings(rows, tokens)

    async def rerank(self, query: str, documents: Sequence[str]) -> Reranked:
        """Raises as `generate` does; ContextLengthExceeded where the query leaves no room for a document."""
        started = time.perf_counter()
        tokens = 0
        scores: dict[int, float] = {}
        request = Rerank(query, list(documents))
        charge = charge_of(request)
        with self._place(charge) as place, await self._call(request, place) as call:
            async for bodies in call:
                for event in (_checked(_events.decode(body)) for body in bodies):
                    if isinstance(event, Admitted):
                        tokens = charge.used = event.prompt_tokens
                    elif isinstance(event, Scores):
                        scores |= zip(event.indices, event.scores, strict=True)
        if len(scores) != len(documents):
            raise ServiceError(f"model {self.name} ended a reranking with {len(scores)} of {len(documents)} scores")
        self._telemetry.request.model(time.perf_counter() - started, self.name, "rerank")
        self._telemetry.tokens(self.name, read=tokens, written=0)
        return Reranked([scores[place] for place in range(len(documents))], tokens)

    async def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True, pieces: bool = False
    ) -> Tokens:
        """`text` as this model's token ids, as `engine.Tokenize` says; waits for no generation.

        Raises RequestError for an engine without token ids, and as `generate` does.
        """
        return await self._lookup(Tokenize(text, add_special, parse_special, pieces), Tokens)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """What token ids say, control tokens by their texts. Raises as `tokenize`, InvalidValue for a foreign id."""
        return (await self._lookup(Detokenize(list(tokens)), Spelled)).text

    async def count(self, request: Generate) -> int:
        """The prompt_tokens that `generate` of the same request would report, also of one over the context."""
        return (await self._lookup(Count(request), Counted)).tokens

    async def _lookup(self, request: Lookup, kind: type[Told]) -> Told:
        with self._place() as place, await self._call(request, place) as call:
            async for bodies in call:
                told = _checked(_events.decode(bodies[0]))
                if isinstance(told, kind):
                    return told
        raise ServiceError(f"model {self.name} did not answer a {type(request).__name__.lower()}")

    @contextmanager
    def _place(self, charge: Charge | None = None) -> Iterator[_Place]:
        """A place among the requests of this model, paid for and held while the block lasts.

        Without a charge it needs no turn: a lookup is answered before those that wait. What a call raises in the block
        is told as the model's fault.
        """
        if charge is not None:
            charge.reserve()
        deadline = self.spec.deadline
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline.total_seconds()
        ticket = None
        self._begins()
        try:
            if charge is not None:
                ticket = self._admission.ask(charge)
            yield _Place(ticket, until)
        except CallExpired as error:
            raise DeadlineExceeded(f"Model {self.name} did not answer within its deadline of {deadline}.") from error
        except WorkerUnavailable as error:
            raise self._unavailable() from error
        except WorkerLost as error:
            raise self._lost(error) from error
        finally:
            self._ends()
            if ticket is not None:
                self._admission.leave(ticket)
            if charge is not None:
                charge.settle()

    async def _call(self, request: Request | Lookup, place: _Place) -> Call:
        """A call of the worker, once its turn has come."""
        if place.waiting is not None and not await self._admission.turn(place.waiting, place.until):
            raise CallExpired("its time was over before its turn came")
        if self._rested:
            await self._wake()
        call = self._worker.call(_requests.encode(request))
        if place.until is not None:
            call.expire_at(place.until)
        return call


def _checked(event: Event) -> Event:
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, param=event.param)
    return event
