"""What holds a model in memory: its worker process, ended when nobody uses it for long and started again on demand."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

import msgspec

from config.model import EchoModel, WorkerSpec
from server.errors import ModelCrashed, ModelUnavailable, ServiceError
from server.models import cold_weights
from server.models.cold_weights import Cold
from server.models.dialect import Dialect
from server.models.engine import Card
from server.models.hub import Access
from server.models.service import EngineConfig
from server.worker import Worker, WorkerFailed, WorkerLost, WorkerUnavailable

log = logging.getLogger(__name__)

State = Literal["stopped", "loading", "ready", "failed"]

_SERVICE = "server.models.service:EngineService"
_LOAD_SECONDS = 600.0
_RETRY_S = 30.0
"""After which weights that could not be brought back are asked for again."""

_cards = msgspec.msgpack.Decoder(Card)


class Shared(Protocol):
    """Memory that several models share."""

    def room(self, model: "Resident") -> AbstractAsyncContextManager[None]:
        """Room for this model, which takes it before the block ends. Raises ModelUnavailable."""
        ...


class Resident:
    """One declared model's process; knows no requests but how many there are.

    An async context manager: entering starts the worker and does not wait for the weights.
    """

    def __init__(self, name: str, spec: WorkerSpec, data: Path, cold: Cold | None = None) -> None:
        """`cold` is where weights may be that nobody asked for."""
        self.name = name
        self.spec = spec
        self.in_flight = 0
        self._worker = Worker(name=name, service=_SERVICE, config=_told(spec, data, cold))
        self._card: Card | None = None
        self._read: bytes | None = None
        self._dialect: Dialect | None = None
        self._asleep = False
        self._rested = False
        """Whether it was unloaded since it was last ready: then requests wait until it is loaded again."""
        self._tried = time.monotonic()
        """When it was last begun to be loaded, by that clock."""
        self._waking = asyncio.Lock()
        self._sleep_timer: asyncio.TimerHandle | None = None
        self._sleeping: asyncio.Task[None] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._sharing: Shared | None = None
        self._refusal: str | None = None
        self.used = time.monotonic()
        """When a request of it last began or ended, by that clock."""
        self.asked: float | None = None
        """The same in seconds since 1970; None where nobody asked since it was made."""
        self._sources = [source.path for source in cold_weights.local_sources(spec)]

    def share(self, sharing: "Shared") -> None:
        """Have it loaded only when there is room; to be called before it is entered."""
        self._sharing = sharing
        self._asleep = True

    async def __aenter__(self) -> Self:
        if self.is_cold:
            # To load it would bring its weights back: the first request does.
            self._asleep = self._rested = True
            self._worker.ready_body = cold_weights.card_of(self.spec)
        elif self._sharing is None:
            await self._worker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keep_awake()
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        if self._sleeping is not None:
            await self._sleeping
        await self._worker.stop()

    # ---- what it is -------------------------------------------------------------------------------------------------

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
        return self._worker.error or self._refusal

    @property
    def is_idle(self) -> bool:
        """Whether it could be unloaded, and nobody would notice but by waiting."""
        return self.state == "ready" and not self._asleep and not self.in_flight and not self.spec.pin

    @property
    def is_loaded(self) -> bool:
        """Whether it takes memory, or is about to."""
        return not self._asleep and self.state != "failed"

    @property
    def is_cold(self) -> bool:
        """Whether weights of it are in cold storage, from which loading brings them back."""
        return any(map(cold_weights.is_away, self._sources))

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
        if (body := self._worker.ready_body) is not self._read:
            self._card, self._dialect, self._read = None if body is None else _cards.decode(body), None, body
        return self._card

    @property
    def told(self) -> bytes | None:
        """The card as the worker sent it."""
        return self._worker.ready_body

    def dialect(self) -> Dialect | None:
        """How this model is spoken to; None for an engine that takes messages as they are.

        Raises ModelUnavailable where it has not been ready yet.
        """
        card = self.card
        if card is None:
            self._fetch_soon()
            raise self._unavailable()
        if not card.rendered:
            return None
        if self._dialect is None:
            self._dialect = Dialect(card)
        return self._dialect

    # ---- loading and unloading --------------------------------------------------------------------------------------

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

    async def load(self) -> None:
        """Begin to load what was unloaded, or could not be loaded; returns before it is. Idempotent.

        Where models share memory it waits for room, and raises ModelUnavailable where there can be none.
        """
        if self._sharing is None or self.is_loaded:
            await self._load()
            return
        try:
            async with self._sharing.room(self):
                self._refusal = None
                await self._load()
        except ModelUnavailable as error:
            self._refusal = error.message
            raise

    async def _load(self) -> None:
        async with self._waking:
            if self._sleeping is not None:
                await self._sleeping
                self._sleeping = None
            if self._asleep or self.state == "failed":
                self._tried = time.monotonic()
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

    async def make_room(self, what: str = "to make room for another model") -> bool:
        """Free its memory where nobody uses it; whether that was so."""
        if not self.is_idle:
            return False
        log.info("unloading %s %s", self.name, what)
        self._keep_awake()
        self._fall_asleep()
        assert self._sleeping is not None, "it has just begun"
        await asyncio.shield(self._sleeping)
        return True

    async def changes(self) -> AsyncGenerator[None, None]:
        """Once at the beginning, and whenever state or progress have changed since. Never ends by itself."""
        while True:
            change = self._worker.change
            yield
            await change.wait()

    # ---- for its requests -------------------------------------------------------------------------------------------

    def _begins(self) -> None:
        """A request begins, until whose end it is not idle."""
        self.in_flight += 1
        self.used, self.asked = time.monotonic(), time.time()
        self._keep_awake()

    def _ends(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        self.used, self.asked = time.monotonic(), time.time()
        self._rest_later()

    async def _wake(self) -> None:
        """Have what was unloaded loaded again, and wait for it; nobody waits for a model's first loading."""
        if self._asleep or self._may_try_again:
            await self.load()
        await self.ready()
        self._rested = False

    @property
    def _may_try_again(self) -> bool:
        """Whether weights could not be brought back a while ago: their storage may be there again."""
        return self.state == "failed" and time.monotonic() - self._tried > _RETRY_S and self.is_cold

    def _fetch_soon(self) -> None:
        """Have weights brought back of which nothing is known but where they are."""
        if self._rested and self._fetching is None and self.is_cold and (self._asleep or self._may_try_again):
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(), name=f"cold weights of {self.name}")

    async def _fetch(self) -> None:
        try:
            await self.load()
        except ModelUnavailable as error:
            log.warning("%s", error.message)
        finally:
            self._fetching = None

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
        if self._asleep and self._refusal is not None:
            return ModelUnavailable(self._refusal, retry_after=30)
        if self._fetching is not None:
            return ModelUnavailable(f"Model {self.name} is brought back from cold storage; try again.", retry_after=5)
        if self._asleep and self._rested:
            return ModelUnavailable(f"Model {self.name} was unloaded; the next request loads it.", retry_after=1)
        why = f" ({self.error})" if self.error else f" ({self.progress})" if self.progress else ""
        return ModelUnavailable(f"Model {self.name} is loading{why}; try again soon.", retry_after=2)


def _told(spec: WorkerSpec, data: Path, cold: Cold | None) -> bytes:
    mine = cold if cold_weights.local_sources(spec) else None
    return EngineConfig(spec, data, _access(spec), mine).encode()


def _access(spec: WorkerSpec) -> Access | None:
    """For a model that may fetch its weights: workers do not inherit the environment, in which tokens stand."""
    return None if isinstance(spec, EchoModel) or not spec.download else Access.of(os.environ)
