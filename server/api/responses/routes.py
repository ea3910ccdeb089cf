"""`/v1/responses` over HTTP: create, read, list the input of, cancel, delete, compact, count."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, delete, get, post
from litestar.params import Parameter

from server import chat
from server.api import sse
from server.api.decode import decode, ignored
from server.api.document import documented
from server.api.reply import Direct, Reply, json
from server.api.responses.answering import Answering, begin, conversation
from server.api.responses.asked import named_here, wanted
from server.api.responses.compacting import compact
from server.api.responses.events import ResponseEvent, StreamedEvent
from server.api.responses.kept import Kept
from server.api.responses.wire import (
    Compact,
    Compacted,
    CreateResponse,
    DeletedResponse,
    InputTokens,
    ItemList,
    Response,
)
from server.errors import NotFound, RequestError
from server.models.caller import CALLER
from server.runtime import Runtime

_json = msgspec.json.Encoder()
_READ_FAULTS = ("400", "401", "403", "404", "429", "500")
_ONE = ["/v1/responses/{response_id:str}", "/responses/{response_id:str}"]


@post(
    ["/v1/responses", "/responses"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(CreateResponse, Response, stream=StreamedEvent, summary="Answer, in items"),
)
async def create_response(request: Request[Any, Any, Any]) -> Direct:
    asked, unknown = await decode(request, CreateResponse)
    runtime = _runtime(request)
    kept = kept_of(runtime)
    answering = await begin(runtime, asked, kept, kept.conversation)
    headers = ignored(unknown + answering.no_effect)
    if asked.stream:
        return sse.EventStream(_stream(answering), headers)
    with named_here():
        return json(await answering.whole(), headers=headers)


async def _stream(answering: Answering) -> AsyncGenerator[bytes, None]:
    async with aclosing(answering.events()) as steps:
        async for step in steps:
            yield b"".join(map(_event, step))
    yield sse.DONE


def _event(event: ResponseEvent) -> bytes:
    return b"event: " + event.named().encode() + b"\n" + sse.event(_json.encode(event))


@get(
    _ONE,
    opt={"needs": "infer"},
    operation_class=documented(None, Response, summary="Read a kept response", faults=_READ_FAULTS),
)
async def show_response(
    request: Request[Any, Any, Any],
    response_id: str,
    stream: Annotated[Literal["false", "0"] | None, Parameter(description="Kept ones are not streamed again.")] = None,
) -> Reply:
    return Reply(await kept_of(_runtime(request)).get(response_id))


@delete(
    _ONE,
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(None, DeletedResponse, summary="Forget a response", faults=_READ_FAULTS),
)
async def delete_response(request: Request[Any, Any, Any], response_id: str) -> Reply:
    await kept_of(_runtime(request)).delete(response_id)
    return json(DeletedResponse(response_id))


@post(
    [f"{route}/cancel" for route in _ONE],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(None, Response, summary="Cancel a background response", faults=_READ_FAULTS),
)
async def cancel_response(request: Request[Any, Any, Any], response_id: str) -> Reply:
    """None runs in the background here: one that streams is cancelled by leaving it."""
    await kept_of(_runtime(request)).get(response_id)
    raise RequestError("Cannot cancel a synchronous response.", param="response_id")


@get(
    [f"{route}/input_items" for route in _ONE],
    opt={"needs": "infer"},
    operation_class=documented(None, ItemList, summary="List what a response answered", faults=_READ_FAULTS),
)
async def list_input_items(
    request: Request[Any, Any, Any],
    response_id: str,
    limit: Annotated[int, Parameter(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Reply:
    items = await kept_of(_runtime(request)).input(response_id)
    if order == "desc":
        items.reverse()
    if after is not None:
        place = next((place for place, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise NotFound(f"There is no item with the id '{after[:80]}'.", param="after")
        items = items[place + 1 :]
    page = items[:limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return json(ItemList(page, first, last, has_more=len(items) > limit))


@post(
    ["/v1/responses/compact", "/responses/compact"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(Compact, Compacted, summary="Make a conversation short"),
)
async def compact_response(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, Compact)
    runtime = _runtime(request)
    kept = kept_of(runtime)
    short, no_effect = await compact(runtime, asked, kept, kept.conversation)
    return json(short, headers=ignored(unknown + no_effect))


@post(
    ["/v1/responses/input_tokens", "/responses/input_tokens"],
    status_code=200,
    opt={"needs": "infer"},
    operation_class=documented(CreateResponse, InputTokens, summary="Count what a response would read"),
)
async def count_input_tokens(request: Request[Any, Any, Any]) -> Reply:
    asked, unknown = await decode(request, CreateResponse)
    runtime = _runtime(request)
    kept = kept_of(runtime)
    target = runtime.target(asked.model)
    said = await conversation(runtime, asked, kept, kept.conversation)
    asks = wanted(asked, target, said.spoken)
    with named_here(said.spoken):
        tokens = await chat.count(runtime, target, asks.asked)
    return json(InputTokens(tokens), headers=ignored(unknown + asks.no_effect + said.passed_over))


def kept_of(runtime: Runtime) -> Kept:
    """What is kept of the responses of whoever asks."""
    return Kept(runtime.state, runtime.recipe.server.responses, CALLER.get().name)


def _runtime(request: Request[Any, Any, Any]) -> Runtime:
    runtime: Runtime = request.app.state["runtime"]
    return runtime
