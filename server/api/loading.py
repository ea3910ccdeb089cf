"""Loading and unloading by hand, and what becomes of it as events: the routes of llama.cpp's router."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from msgspec import UNSET, Meta, UnsetType

from server.api import sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.listing import asked
from server.api.models import model_status
from server.api.reply import Direct, Reply, json
from server.api.wire import Name
from server.api.wire_models import ModelStatus
from server.models.served import Served
from server.runtime import Runtime

_PERCENT = re.compile(r"\b(\d{1,3}) %")
_json = msgspec.json.Encoder()


class EventsQuery(msgspec.Struct):
    """The stream ends after `timeout` seconds; without it, when the client leaves."""

    timeout: Annotated[float, Meta(ge=0.1, le=86_400)] | UnsetType = UNSET


class LoadRequest(msgspec.Struct):
    model: Name


class LoadReply(msgspec.Struct):
    """`status` is what the model is at now: loading goes on after the answer, unloading is done."""

    success: Literal[True]
    model: str
    status: ModelStatus


class LoadProgress(msgspec.Struct):
    """`current` is a sentence; `value`, 0 to 1, stands where it is known how far that is."""

    stages: list[str]
    current: str
    value: float | UnsetType = UNSET


class StatusData(msgspec.Struct):
    status: Literal["loaded", "loading", "unloaded", "failed"]
    progress: LoadProgress | UnsetType = UNSET
    error: str | UnsetType = UNSET


class ModelEvent(msgspec.Struct):
    """One model's state, at the beginning of the stream and whenever it changes."""

    model: str
    event: Literal["model_status"]
    data: StatusData


@post(
    ["/v1/models/load", "/models/load"],
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(LoadRequest, LoadReply, summary="Load a model again"),
)
async def load_model(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, LoadRequest)
    model = _model(request, asked.model)
    await model.load()
    return json(LoadReply(True, model.name, model_status(model)), headers=ignored(unknown))


@post(
    ["/v1/models/unload", "/models/unload"],
    status_code=200,
    opt={"needs": "admin"},
    operation_class=documented(LoadRequest, LoadReply, summary="Free a model's memory until it is asked again"),
)
async def unload_model(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, LoadRequest)
    model = _model(request, asked.model)
    await model.unload()
    return json(LoadReply(True, model.name, model_status(model)), headers=ignored(unknown))


@get(
    ["/v1/models/sse", "/models/sse"],
    opt={"needs": "infer"},
    operation_class=documented(
        None,
        "text/event-stream",
        query=EventsQuery,
        summary="The models' states as events",
        faults=("400", "401", "403", "429"),
    ),
)
async def model_events(request: Request[Any, Any, Any]) -> Direct:
    query, unknown = asked(request, EventsQuery)
    runtime: Runtime = request.app.state["runtime"]
    limit = query.timeout if isinstance(query.timeout, float) else None
    return sse.EventStream(_events(list(runtime.models.values()), limit), ignored(unknown))


ROUTES = [load_model, unload_model, model_events]


def _model(request: Request[Any, Any, Any], model_id: str) -> Served:
    runtime: Runtime = request.app.state["runtime"]
    return runtime.target(model_id).model


async def _events(models: list[Served], limit: float | None) -> AsyncGenerator[bytes, None]:
    """What every model is at now, then each change, for `limit` seconds.

    Of changes that follow one another closely the last one counts.
    """
    loop = asyncio.get_running_loop()
    until = None if limit is None else loop.time() + limit
    arrived: asyncio.Queue[ModelEvent] = asyncio.Queue()

    async def follow(model: Served) -> None:
        last: StatusData | None = None
        async with aclosing(model.changes()) as changes:
            async for _ in changes:
                if (now := _data(model)) != last:
                    last = now
                    arrived.put_nowait(ModelEvent(model.name, "model_status", now))

    tasks = [asyncio.create_task(follow(model)) for model in models]
    try:
        while True:
            try:
                async with asyncio.timeout_at(until):
                    event = await arrived.get()
            except TimeoutError:
                return
            yield sse.event(_json.encode(event))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _data(model: Served) -> StatusData:
    status = model_status(model)
    if status.failed:
        return StatusData("failed", error=status.error or "it could not be loaded")
    data = StatusData(status.value)
    if status.progress is not None:
        data.progress = LoadProgress([status.progress], status.progress)
        if percent := _PERCENT.search(status.progress):
            data.progress.value = int(percent[1]) / 100
    return data
