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
from typing import Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from config.model import EchoModel, ModelSpec
from server.errors import (
    DeadlineExceeded,
    HearthError,
    ModelCrashed,
    ModelUnavailable,
    Overloaded,
    ServiceError,
    from_code,
)
from server.models.dialect import Dialect
from server.models.engine import Admitted, Card, Delta, Embed, Event, Failed, Generate, Request, Rerank, Scores, Vectors
from server.models.hub import Access
from server.models.service import EngineConfig
from server.telemetry import Telemetry
from server.worker import Call, CallExpired, Worker, WorkerFailed, WorkerLost, WorkerUnavailable

log = logging.getLogger(__name__)

State = Literal["stopped", "loading", "ready", "failed"]

_SERVICE = "server.models.service:EngineService"
_LOAD_SECONDS = 600.0
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


class Model:
    """One declared model. An async context manager: entering starts its worker and does not wait for the weights.

    Requests may come from any task of the gateway's loop. `queue` bounds how many are inside at once.
    """

    def __init__(self, name: str, spec: ModelSpec, *, queue: int, data: Path, telemetry: Telemetry) -> None:
        self.name = name
        self.spec = spec
        self.created = int(time.time())
        self.in_flight = 0
        self._queue = queue
        self._telemetry = telemetry
        self._worker = Worker(name=name, service=_SERVICE, config=EngineConfig(spec, data, _access(spec)).encode())
        self._card: Card | None = None
        self._dialect: Dialect | None = None
        self._asleep = False
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
        """Whether a request would be served: ready, or unloaded while idle and loaded again on demand."""
        return self.state == "ready" or self._asleep

    @property
    def error(self) -> str | None:
        return self._worker.error

    @property
    def progress(self) -> str | None:
        return self._worker.progress

    @property
    def restarts(self) -> int:
        return self._worker.restarts

    @property
    def pid(self) -> int | None:
        return self._worker.pid

    @property
    def card(self) -> Card | None:
        """What the engine said of itself when it was last ready; None before its first load."""
        if self._card is None and (body := self._worker.ready_body) is not None:
            self._card = _cards.decode(body)
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
        """Wait until the weights are in. Raises ModelUnavailable with the reason when they cannot be."""
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

        Raises before the first event where the request cannot be served, later where the model fails under it.
        Leaving early cancels the request within one step.
        """
        started = time.perf_counter()
        first: float | None = None
        read = written = 0
        error: str | None = None
        finished = False
        try:
            async with self._call(request) as call:
                async for bodies in call:
                    events = [_checked(_events.decode(body)) for body in bodies]
                    for event in events:
                        if isinstance(event, Delta):
                            written += event.tokens
                            finished = event.finish_reason is not None
                        elif isinstance(event, Admitted):
                            read = event.prompt_tokens
                    if first is None and written:
                        first = time.perf_counter()
                    yield events
        except HearthError as fault:
            error = fault.code
            raise
        finally:
            if error is None and not finished:
                self._telemetry.cancelled(self.name)
            self._record(started, first, read, written, error)

    def _record(self, started: float, first: float | None, read: int, written: int, error: str | None) -> None:
        now = time.perf_counter()
        self._telemetry.request.model(now - started, self.name, "chat", error)
        if read:
            self._telemetry.tokens(self.name, read=read, written=written)
        if first is None:
            return
        self._telemetry.first_token.model(first - started, self.name, "chat")
        if written > 1:
            self._telemetry.per_token.model((now - first) / (written - 1), self.name, "chat")

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
        async with self._call(request) as call:
            async for bodies in call:
                for event in (_checked(_events.decode(body)) for body in bodies):
                    if isinstance(event, Admitted):
                        tokens = event.prompt_tokens
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
        async with self._call(Rerank(query, list(documents))) as call:
            async for bodies in call:
                for event in (_checked(_events.decode(body)) for body in bodies):
                    if isinstance(event, Admitted):
                        tokens = event.prompt_tokens
                    elif isinstance(event, Scores):
                        scores |= zip(event.indices, event.scores, strict=True)
        if len(scores) != len(documents):
            raise ServiceError(f"model {self.name} ended a reranking with {len(scores)} of {len(documents)} scores")
        self._telemetry.request.model(time.perf_counter() - started, self.name, "rerank")
        self._telemetry.tokens(self.name, read=tokens, written=0)
        return Reranked([scores[place] for place in range(len(documents))], tokens)

    @asynccontextmanager
    async def _call(self, request: Request) -> AsyncGenerator[Call, None]:
        """A call of the worker, counted while it lasts and cancelled when it is left early."""
        if self.in_flight >= self._queue:
            raise Overloaded(f"Model {self.name} has {self.in_flight} requests waiting; try again soon.", retry_after=1)
        self.in_flight += 1
        self._keep_awake()
        started = time.monotonic()
        try:
            await self._wake()
            call = self._worker.call(_requests.encode(request))
            timer = None
            if self.spec.deadline is not None:
                left = self.spec.deadline.total_seconds() - (time.monotonic() - started)
                timer = asyncio.get_running_loop().call_later(max(0.0, left), call.expire)
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
            raise ModelCrashed(
                f"Model {self.name} stopped while it worked on this request ({error}); it is being restarted.",
                retry_after=2,
            ) from error
        finally:
            self.in_flight -= 1
            self._rest_later()

    def _unavailable(self) -> ModelUnavailable:
        if self.state == "failed":
            return ModelUnavailable(f"Model {self.name} could not be loaded: {self.error}", retry_after=30)
        why = f" ({self.error})" if self.error else f" ({self.progress})" if self.progress else ""
        return ModelUnavailable(f"Model {self.name} is loading{why}; try again soon.", retry_after=2)

    # ---- unloading while idle -----------------------------------------------------------------------------------

    async def _wake(self) -> None:
        if not self._asleep:
            return
        async with self._waking:
            if self._sleeping is not None:
                await self._sleeping
            if self._asleep:
                await self._worker.start()
                self._asleep = False
        await self.ready()

    def _keep_awake(self) -> None:
        if self._sleep_timer is not None:
            self._sleep_timer.cancel()
            self._sleep_timer = None

    def _rest_later(self) -> None:
        if self.spec.idle_unload is None or self.in_flight:
            return
        self._keep_awake()
        delay = self.spec.idle_unload.total_seconds()
        self._sleep_timer = asyncio.get_running_loop().call_later(delay, self._fall_asleep)

    def _fall_asleep(self) -> None:
        if self.in_flight or self._asleep or self.state != "ready":
            return
        log.info("unloading %s: idle for %s", self.name, self.spec.idle_unload)
        self._asleep = True
        self._sleeping = asyncio.get_running_loop().create_task(self._worker.stop())


def _access(spec: ModelSpec) -> Access | None:
    """For a model that may fetch its weights: workers do not inherit the environment, in which tokens stand."""
    return None if isinstance(spec, EchoModel) or not spec.download else Access.of(os.environ)


def _checked(event: Event) -> Event:
    if isinstance(event, Failed):
        raise from_code(event.code, event.message, param=event.param)
    return event
