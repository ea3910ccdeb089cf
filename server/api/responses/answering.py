"""One response on its way: what came before is found, the turn admitted, its parts written, the result kept.

The same for HTTP and WebSocket, which differ in how they send events and in what they remember themselves.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from secrets import token_hex

import msgspec

from server import chat
from server.api.responses.asked import Wanted, named_here, wanted
from server.api.responses.events import ResponseEvent
from server.api.responses.items import Input, Json, Spoken, files_of, fresh, read, spoken
from server.api.responses.kept import Kept
from server.api.responses.parts import attached
from server.api.responses.wire import (
    AskedReasoning,
    CreateResponse,
    FileSearchItem,
    InputTokensDetails,
    OutputTokensDetails,
    ReasoningConfig,
    Response,
    ResponseUsage,
    TextConfig,
)
from server.api.responses.writing import Writer, searched
from server.api.turns import Count, Turn, added, admit
from server.chat import Asked, Started
from server.errors import ContextLengthExceeded, HearthError, InvalidValue
from server.models.engine import Message
from server.runtime import Runtime, Target

Before = Callable[[str], Awaitable[list[Json]]]
"""All items up to the end of the response of an id. Raises PreviousResponseNotFound."""


@dataclass
class Answering:
    """An admitted response. `events` answers it, once; then `response` is what it came to.

    `earlier` are the items of the responses it continues; `items` its own: the input's, and once it is answered the
    model's.
    """

    response: Response
    earlier: list[Json]
    items: list[Json]
    no_effect: list[str]
    _writer: Writer
    _turn: Turn
    _started: Started
    _kept: Kept | None

    async def events(self) -> AsyncGenerator[list[ResponseEvent], None]:
        """Those of one step together. A fault of the model is the last two; leaving early cancels the work."""
        count = Count()
        try:
            async with aclosing(self._turn):
                yield self._writer.begin()
                async for step in self._turn:
                    parts = added(step)
                    count.add(parts)
                    if fresh := self._writer.add(parts):
                        yield fresh
            last = self._writer.end(usage(count, self._started.prompt_tokens))
            await self._done()
            yield last
        except HearthError as error:
            yield self._writer.fail(error)
            self.response = self._writer.response

    async def whole(self) -> Response:
        """The finished response. Raises what the model raises."""
        count = Count()
        self._writer.begin()
        async with aclosing(self._turn):
            async for step in self._turn:
                parts = added(step)
                count.add(parts)
                self._writer.add(parts)
        self._writer.end(usage(count, self._started.prompt_tokens))
        await self._done()
        return self.response

    async def _done(self) -> None:
        self.response = self._writer.response
        output: list[Json] = [msgspec.to_builtins(item) for item in self.response.output]
        if self._kept is not None:
            body = msgspec.json.encode(self.response)
            previous = self.response.previous_response_id
            await self._kept.put(
                self.response.id, previous, body, earlier=self.earlier, given=self.items, output=output
            )
        self.items += output


async def begin(
    runtime: Runtime, request: CreateResponse, kept: Kept, before: Before, *, silent: bool = False
) -> Answering:
    """Have a request admitted; faults up to here are ordinary errors, and nothing was computed for it.

    A `silent` one reads its input and says nothing.
    """
    target = runtime.target(request.model)
    said = await conversation(runtime, request, kept, before)
    asks = wanted(request, target, said.spoken)
    if silent:
        asks = replace(asks, asked=msgspec.structs.replace(asks.asked, max_tokens=0))
    with named_here(said.spoken):
        turn, started = await _admitted(runtime, target, asks.asked, cut=request.truncation == "auto")
    response = _response(request, asks)
    return Answering(
        response,
        said.earlier,
        said.items,
        [*asks.no_effect, *said.passed_over],
        Writer(
            response,
            summary=asks.summary,
            seal=asks.sealed,
            silent=silent,
            results=asks.results,
            search=_search(asks, started) if asks.searches else None,
        ),
        turn,
        started,
        kept if response.store else None,
    )


def _search(asks: Wanted, started: Started) -> FileSearchItem:
    """The search that the client's tool asked for, which came before the answer."""
    item = FileSearchItem(fresh("file_search_call"), list(filter(None, [asks.question])), "in_progress")
    return searched(item, started.hits, failed=False, results=asks.results)


@dataclass(frozen=True)
class Conversation:
    """The items of earlier responses, a request's own, and both as a model reads them."""

    earlier: list[Json]
    items: list[Json]
    spoken: Spoken
    passed_over: list[str]


async def conversation(runtime: Runtime, request: CreateResponse, kept: Kept, before: Before) -> Conversation:
    """What a request is about. Raises where there is nothing, or something that it refers to is not there."""
    given = read(request.input)
    if not given.items and request.previous_response_id is None:
        raise InvalidValue("There is nothing to answer: `input` has no items.", param="input")
    earlier = await before(request.previous_response_id) if request.previous_response_id is not None else []
    items = await _items(given, earlier, kept)
    files = await attached(runtime.files, files_of([*earlier, *items]))
    return Conversation(earlier, items, spoken(request.instructions, earlier, items, files), given.passed_over)


async def _items(given: Input, earlier: list[Json], kept: Kept) -> list[Json]:
    known = {item["id"]: item for item in earlier}
    missing = [name for name in given.references.values() if name not in known]
    return given.with_found(known | await kept.items(missing))


async def _admitted(runtime: Runtime, target: Target, asked: Asked, *, cut: bool) -> tuple[Turn, Started]:
    """The turn, admitted. With `cut` as many of the oldest turns are left out as the model's context needs.

    Told before anything is computed, a conversation too long costs little; so they are left out ever faster.
    """
    shorter = _shorter(asked.messages) if cut else []
    place = 0
    while True:
        turn = chat.turn(runtime, target, asked)
        try:
            return turn, (await admit([turn]))[0]
        except ContextLengthExceeded:
            if not shorter or place == len(shorter) - 1:
                raise
            place = min(2 * place + 1, len(shorter) - 1)
            asked = msgspec.structs.replace(asked, messages=shorter[place])


def _shorter(spoken: Sequence[Message]) -> list[list[Message]]:
    """The conversation from its first question on, from its second, and so on; always with what the system says."""
    first = next((place for place, message in enumerate(spoken) if message.role != "system"), 0)
    system = list(spoken[:first])
    questions = [place for place in range(first, len(spoken)) if spoken[place].role == "user"]
    return [system + list(spoken[place:]) for place in questions]


def usage(count: Count, read: int) -> ResponseUsage:
    """`read` is the tokens of the prompt."""
    return ResponseUsage(
        input_tokens=read,
        input_tokens_details=InputTokensDetails(count.cached),
        output_tokens=count.written,
        output_tokens_details=OutputTokensDetails(count.reasoned),
        total_tokens=read + count.written,
    )


def _response(request: CreateResponse, asks: Wanted) -> Response:
    """What was asked, in full, with the values that hold where nothing was said."""
    sampling = asks.asked.sampling
    text = TextConfig((request.text and request.text.format) or {"type": "text"})
    if request.text and request.text.verbosity is not None:
        text.verbosity = request.text.verbosity
    reasoning = request.reasoning or AskedReasoning()
    return Response(
        id=f"resp_{token_hex(24)}",
        created_at=int(time.time()),
        status="in_progress",
        model=request.model,
        instructions=request.instructions,
        previous_response_id=request.previous_response_id,
        tools=asks.tools,
        tool_choice=request.tool_choice or "auto",
        parallel_tool_calls=request.parallel_tool_calls is not False,
        text=text,
        reasoning=ReasoningConfig(reasoning.effort, reasoning.summary),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        top_logprobs=request.top_logprobs or 0,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        truncation=request.truncation or "disabled",
        store=request.store is not False,
        metadata=request.metadata or {},
        user=request.user,
        safety_identifier=request.safety_identifier,
        prompt_cache_key=request.prompt_cache_key,
    )
