"""The gateway's handle on one model: its worker, its admission and its state; computes nothing itself."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.model import EchoModel, WorkerSpec
from server.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    ModelCrashed,
    ModelUnavailable,
    ServiceError,
    from_code,
)
from server.models.admission import Admission, charge_of, room
from server.models.caller import Charge
from server.models.dialect import Dialect
from server.models.engine import (
    Admitted,
    Card,
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
from server.models.hub import Access
from server.models.measured import Measured
from server.models.service import EngineConfig
from server.telemetry import Telemetry
from server.worker import Call, CallExpired, Worker, WorkerFailed, WorkerLost, WorkerUnavailable

log = logging.getLogger(__name__)

State = Literal["stopped", "loading", "ready", "failed"]
Told = TypeVar("Told", Tokens, Spelled, Counted)

_SERVICE = "server.models.service:EngineService"
_LOAD_SECONDS = 600.0
_PATIENCE_SECONDS = 1.0
"""Clients give up on a server that is silent for long: one whose request waits longer than this hears that it does."""

_requests = msgspec.msgpack.Encoder()
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)
_cards = msgspec.msgpack.Decoder(Card)


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a request stands, and until when it has to be answered, by the loop's clock; None for ever."""

    ticket: Ticket | None
    until: float | None

    @property
    def waiting(self) -> Ticket | None:
        """The ticket, where its turn has not come yet."""
        return None if self.ticket is None or self.ticket.inside else self.ticket


class Model:
    """One declared model. An async context manager: entering starts its worker and does not wait for the weights.

    Requests may come from any task of the gateway's loop. `queue` bounds how many may wait for the worker.
    """

    def __init__(self, name: str, spec: WorkerSpec, *, queue: int, data: Path, telemetry: Telemetry) -> None:
        self.name = name
        self.spec = spec
        self.created = int(time.time())
        self.in_flight = 0
        self._admission = Admission(name, room(spec), queue)
        self._telemetry = telemetry
        self._worker = Worker(name=name, service=_SERVICE, config=EngineConfig(spec, data, _access(spec)).encode())
        self._card: Card | None = None
        self._told: bytes | None = None
        self._dialect: Dialect | None = None
        self._asleep = False
        self._rested = False
        """Whether it was unloaded since it was last ready: then requests wait until it is loaded again."""
        self._waking = asyncio.Lock()
        self._sleep_timer: asyncio.TimerHandle | None = None
        self._sleeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keep_awake()
        if self._sleeping is not None:
            await self._sleeping
        await self._worker.stop()

    # ---- state --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        match self._worker.state:
            case "ready":
                return "ready"
            case "failed":
                return "failed"
            case "stopped" | "stopping":
                return "stopped"
            case _:
                return "loading"

    @property
    def available(self) -> bool:
        """Whether a request would be served: ready, or unloaded and loaded again on demand."""
        return self.state == "ready" or (self._rested and self.state != "failed")

    @property
    def error(self) -> str | None:
        return self._worker.error

    @property
    def progress(self) -> str | None:
        return self._worker.progress

    @property
    def queued(self) -> int:
        """How many of the requests in flight wait for a place in the worker."""
        return self._admission.waiting

    def resize_queue(self, queue: int) -> None:
        """How many requests may wait from now on."""
        self._admission.resize(queue)

    @property
    def restarts(self) -> int:
        return self._worker.restarts

    @property
    def pid(self) -> int | None:
        return self._worker.pid

    @property
    def card(self) -> Card | None:
        """What the engine said of itself when it was last ready; None before its first load."""
        if (body := self._worker.ready_body) is not self._told:
            self._card, self._dialect, self._told = None if body is None else _cards.decode(body), None, body
        return self._card

    def dialect(self) -> Dialect | None:
        """How this model is spoken to; None for an engine that takes messages as they are.

        Raises ModelUnavailable where it has not been ready yet.
        """
        card = self.card
        if card is None:
            raise self._unavailable()
        if not card.rendered:
            return None
        if self._dialect is None:
            self._dialect = Dialect(card)
        return self._dialect

    async def ready(self, timeout: float = _LOAD_SECONDS) -> Card:
        """Wait until the weights are in, of an unloaded model too. Raises ModelUnavailable where they cannot be."""
        if self._asleep:
            await self.load()
        try:
            await self._worker.wait_ready(timeout)
        except (WorkerFailed, WorkerUnavailable, TimeoutError) as error:
            raise self._unavailable() from error
        card = self.card
        assert card is not None, "a ready worker has sent its card"
        return card

    # ---- requests -----------------------------------------------------------------------------------------------

    async def generate(self, request: Generate) -> AsyncGenerator[list[Event], None]:
        """The events of one answer, those that arrived together in one list; the very first one is Admitted.

        One that has to wait long is checked meanwhile and told Admitted, so that its client hears that it was taken.
        Raises before the first event where the request cannot be served, later where the model fails under it.
        Leaving early cancels the request within one step.
        """
        charge = charge_of(request)
        with Measured(self._telemetry, self.name, "chat") as measured:
            async with self._place(charge) as place:
                early = await self._early(request, place)
                if early is not None:
                    yield [early]
                async with self._call(request, place) as call:
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

    async def _early(self, request: Generate, place: _Place) -> Admitted | None:
        """What the worker would say of a request at once, if it has waited for a while; None where its turn came."""
        if place.waiting is None:
            return None
        soon = asyncio.get_running_loop().time() + _PATIENCE_SECONDS
        if await self._admission.turn(place.waiting, soon if place.until is None else min(soon, place.until)):
            return None
        tokens = await self.count(request)
        if (card := self.card) is not None and tokens > card.context:
            raise ContextLengthExceeded.of(card.context, tokens)
        return Admitted(tokens)

    async def embed(self, inputs: Sequence[str]) -> Embeddings:
        """One vector a text. Raises as `generate` does; ContextLengthExceeded where one text is too long."""
        return await self._embed(Embed(texts=list(inputs)), len(inputs))

    async def embed_tokens(self, tokens: Sequence[list[int]]) -> Embeddings:
        """As `embed`, for texts given as this model's token ids."""
        return await self._embed(Embed(tokens=list(tokens)), len(tokens))

    async def _embed(self, request: Embed, count: int) -> Embeddings:
        started = time.perf_counter()
        tokens = 0
        rows: NDArray[np.float32] | None = None
        charge = charge_of(request)
        async with self._place(charge) as place, self._call(request, place) as call:
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
        async with self._place(charge) as place, self._call(request, place) as call:
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
        async with self._place() as place, self._call(request, place) as call:
            async for bodies in call:
                told = _checked(_events.decode(bodies[0]))
                if isinstance(told, kind):
                    return told
        raise ServiceError(f"model {self.name} did not answer a {type(request).__name__.lower()}")

    @asynccontextmanager
    async def _place(self, charge: Charge | None = None) -> AsyncGenerator[_Place, None]:
        """A place among the requests of this model, paid for and held while the block lasts.

        Without a charge it needs no turn: a lookup is answered before those that wait.
        """
        if charge is not None:
            charge.reserve()
        self.in_flight += 1
        self._keep_awake()
        deadline = self.spec.deadline
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline.total_seconds()
        ticket = None
        try:
            if charge is not None:
                ticket = self._admission.ask(charge)
            yield _Place(ticket, until)
        finally:
            self.in_flight -= 1
            if ticket is not None:
                self._admission.leave(ticket)
            if charge is not None:
                charge.settle()
            self._rest_later()

    @asynccontextmanager
    async def _call(self, request: Request | Lookup, place: _Place) -> AsyncGenerator[Call, None]:
        """A call of the worker, once its turn has come; cancelled when it is left early."""
        until = place.until
        try:
            if place.waiting is not None and not await self._admission.turn(place.waiting, until):
                raise CallExpired("its time was over before its turn came")
            await self._wake()
            call = self._worker.call(_requests.encode(request))
            timer = None if until is None else asyncio.get_running_loop().call_at(until, call.expire)
            try:
                yield call
            finally:
                if timer is not None:
                    timer.cancel()
                await call.aclose()
        except CallExpired as error:
            raise DeadlineExceeded(
                f"Model {self.name} did not answer within its deadline of {self.spec.deadline}."
            ) from error
        except WorkerUnavailable as error:
            raise self._unavailable() from error
        except WorkerLost as error:
            raise self._lost(error) from error

    def _lost(self, error: WorkerLost) -> ServiceError:
        if self._asleep:
            return self._unavailable()
        return ModelCrashed(
            f"Model {self.name} stopped while it worked on this request ({error}); it is being restarted.",
            retry_after=2,
        )

    def _unavailable(self) -> ModelUnavailable:
        if self.state == "failed":
            return ModelUnavailable(f"Model {self.name} could not be loaded: {self.error}", retry_after=30)
        if self._asleep:
            return ModelUnavailable(f"Model {self.name} was unloaded; the next request loads it.", retry_after=1)
        why = f" ({self.error})" if self.error else f" ({self.progress})" if self.progress else ""
        return ModelUnavailable(f"Model {self.name} is loading{why}; try again soon.", retry_after=2)

    # ---- unloading and loading again ----------------------------------------------------------------------------

    async def load(self) -> None:
        """Begin to load what was unloaded, or could not be loaded; returns before it is. Idempotent."""
        async with self._waking:
            if self._sleeping is not None:
                await self._sleeping
                self._sleeping = None
            if self._asleep or self.state == "failed":
                await self._worker.start()
                self._asleep = False

    async def unload(self) -> None:
        """Free the model's memory: its process has ended when this returns. Idempotent.

        Requests in flight end with ModelUnavailable; the next one has it loaded again.
        """
        async with self._waking:
            self._keep_awake()
            if not self._asleep:
                log.info("unloading %s", self.name)
                self._fall_asleep()
            if self._sleeping is not None:
                await asyncio.shield(self._sleeping)

    async def changes(self) -> AsyncGenerator[None, None]:
        """Once at the beginning, and whenever state or progress have changed since. Never ends by itself."""
        while True:
            change = self._worker.change
            yield
            await change.wait()

    async def _wake(self) -> None:
        """Have what was unloaded loaded again, and wait for it; nobody waits for a model's first loading."""
        if not self._rested:
            return
        if self._asleep:
            await self.load()
        await self.ready()
        self._rested = False

    def _keep_awake(self) -> None:
        if self._sleep_timer is not None:
            self._sleep_timer.cancel()
            self._sleep_timer = None

    def _rest_later(self) -> None:
        if self.spec.idle_unload is None or self.in_flight:
            return
        self._keep_awake()
        delay = self.spec.idle_unload.total_seconds()
        self._sleep_timer = asyncio.get_running_loop().call_later(delay, self._sleep_if_idle)

    def _sleep_if_idle(self) -> None:
        if self.in_flight or self._asleep or self.state != "ready":
            return
        log.info("unloading %s: idle for %s", self.name, self.spec.idle_unload)
        self._fall_asleep()

    def _fall_asleep(self) -> None:
        self._asleep = self._rested = True
        self._sleeping = asyncio.get_running_loop().create_task(self._worker.stop())


def _access(spec: WorkerSpec) -> Access | None:
    """For a model that may fetch its weights: workers do not inherit the environment, in which tokens stand."""
    return None if isinstance(spec, EchoModel) or not spec.download else Access.of(os.environ)


def _checked(event: Event) -> Event:
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, param=event.param)
    return event
