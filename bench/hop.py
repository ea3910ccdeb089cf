"""The hop to a worker process: the echo engine behind Worker and Model, and the same engine called in process."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from config.model import EchoModel
from config.server import TelemetrySpec
from server.models.engine import Delta, Event, Generate, Message
from server.models.engines.echo import EchoEngine
from server.models.model import Model
from server.models.service import EngineConfig
from server.telemetry import Telemetry
from server.worker import Worker

STREAMS = 32
PACE = 50.0
"""Tokens a second of each stream where the engine is paced, about what a person's own machine generates."""

_SERVICE = "server.models.service:EngineService"
_requests = msgspec.msgpack.Encoder()
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


class Hops(NamedTuple):
    """Medians: seconds to the first token, and tokens a second over all streams."""

    first_local: float
    first_worker: float
    rate_local: float
    rate_worker: float


async def measure(folder: Path, rounds: int, first_tokens: int, rate_tokens: int) -> Hops:
    fast, paced = EchoModel(engine="echo"), EchoModel(engine="echo", tokens_per_second=PACE)
    worker = Worker(name="hop", service=_SERVICE, config=EngineConfig(fast, folder).encode())
    async with worker, _model(paced, folder) as model:
        await worker.wait_ready(60)
        firsts = [(_first_local(fast), await _first_worker(worker)) for _ in range(first_tokens)]
        request = _asked(" ".join(["word"] * rate_tokens))
        rates = [(_rate_local(paced, request), await _rate_worker(model, request)) for _ in range(rounds)]
    return Hops(*map(median, zip(*firsts, strict=True)), *map(median, zip(*rates, strict=True)))


@asynccontextmanager
async def _model(spec: EchoModel, folder: Path) -> AsyncIterator[Model]:
    telemetry = Telemetry(TelemetrySpec(), "bench")
    async with Model("hop", spec, queue=STREAMS, data=folder, telemetry=telemetry) as model:
        await model.ready()
        yield model
    telemetry.close()


def _asked(text: str) -> Generate:
    return Generate([Message("user", text)])


def _loaded(spec: EchoModel) -> EchoEngine:
    engine = EchoEngine(spec)
    engine.load(lambda text: None)
    return engine


# ---- the first token ------------------------------------------------------------------------------------------------


def _first_local(spec: EchoModel) -> float:
    engine = _loaded(spec)
    request = _asked("Hello")
    started = time.perf_counter()
    engine.submit(0, request)
    while not engine.step():
        pass
    return time.perf_counter() - started


async def _first_worker(worker: Worker) -> float:
    started = time.perf_counter()
    with worker.call(_requests.encode(_asked("Hello"))) as call:
        async for bodies in call:
            if any(isinstance(_events.decode(body), Delta) for body in bodies):
                return time.perf_counter() - started
    raise RuntimeError("the echo engine ended without a token")


# ---- tokens a second ------------------------------------------------------------------------------------------------


def _rate_local(spec: EchoModel, request: Generate) -> float:
    engine = _loaded(spec)
    started = time.perf_counter()
    for key in range(STREAMS):
        engine.submit(key, request)
    written = 0
    while engine.busy:
        written += sum(event.tokens for _, event in engine.step() if isinstance(event, Delta))
    return written / (time.perf_counter() - started)


async def _rate_worker(model: Model, request: Generate) -> float:
    started = time.perf_counter()
    written = await asyncio.gather(*(_written(model, request) for _ in range(STREAMS)))
    return sum(written) / (time.perf_counter() - started)


async def _written(model: Model, request: Generate) -> int:
    async with aclosing(model.generate(request)) as answer:
        return sum([event.tokens async for events in answer for event in events if isinstance(event, Delta)])
