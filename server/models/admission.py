"""Lets requests into one model's worker: a few more than its engine computes at once, the others wait here by caller.

What is in the worker is served first come, first served; so only what waits here can be served fairly.
"""

import asyncio
import time
from collections import deque

from config.model import EchoModel, LocalModel, ModelSpec
from server.errors import Overloaded
from server.models.caller import Caller, Charge
from server.models.engine import Embed, Generate, Request, Rerank
from server.models.fair_queue import FairQueue, Room, Ticket

_CHARACTERS_A_TOKEN = 4
_ANSWER_TOKENS = 256
"""What an answer is taken to cost where the request does not bound it lower."""

_SPARE = 16
_ROWS_AT_ONCE = 16
_SHORT_TOKENS = 512
"""Engines for embeddings and reranking let what is shorter than one batch overtake; so does this."""

_MEASURED = 32
"""How many of the last requests tell how fast the model serves."""

_SOONEST_S, _LATEST_S = 1.0, 60.0


def room(spec: ModelSpec) -> Room:
    """How much the worker of such a model is given: two more than it computes, so that it never waits for the next."""
    match spec:
        case LocalModel(task="chat"):
            return Room(spec.parallel + 2, _SPARE)
        case LocalModel():
            return Room(_ROWS_AT_ONCE, _SPARE, _SHORT_TOKENS)
        case EchoModel():
            return Room(spec.parallel, 0)
        case _:
            return Room(_ROWS_AT_ONCE, _SPARE)


def charge_of(request: Request) -> Charge:
    """What a request will cost whoever sends it now, before anybody has counted its tokens."""
    tokens = _prompt_tokens(request)
    answer = 0
    if isinstance(request, Generate):
        answer = _ANSWER_TOKENS if request.max_tokens is None else min(request.max_tokens, _ANSWER_TOKENS)
    return Charge(expected=tokens, cost=tokens + answer)


def _prompt_tokens(request: Request) -> int:
    match request:
        case Generate(prompt=list() as tokens):
            return len(tokens)
        case Generate(prompt=str() as text):
            return len(text) // _CHARACTERS_A_TOKEN
        case Generate(messages=messages):
            return sum(len(message.text) for message in messages) // _CHARACTERS_A_TOKEN
        case Embed(texts=None, tokens=rows):
            return sum(map(len, rows or ()))
        case Embed(texts=texts):
            return sum(map(len, texts or ())) // _CHARACTERS_A_TOKEN
        case Rerank(query, documents):
            return sum(len(query) + len(document) for document in documents) // _CHARACTERS_A_TOKEN


class Admission:
    """The door of one model; of one event loop."""

    def __init__(self, model: str, room: Room, queue: int) -> None:
        """`queue` is how many requests may wait."""
        self._model = model
        self._queue = FairQueue(room, queue)
        self._turns: dict[Ticket, asyncio.Future[None]] = {}
        self._ended: deque[float] = deque(maxlen=_MEASURED)

    @property
    def waiting(self) -> int:
        return self._queue.waiting

    def resize(self, queue: int) -> None:
        """How many may wait from now on; those that do already stay."""
        self._queue.queue = queue

    def ask(self, charge: Charge) -> Ticket:
        """A ticket for a request, which is `inside` already or has to wait for its `turn`.

        Every ticket has to be given to `leave`. Raises Overloaded where the caller has its part of the queue already.
        """
        ticket = Ticket(charge.caller.name, charge.cost)
        if not self._queue.enter(ticket):
            self._check(charge.caller)
            self._queue.wait(ticket)
            self._turns[ticket] = asyncio.get_running_loop().create_future()
        return ticket

    def _check(self, caller: Caller) -> None:
        share, waiting = self._queue.share(caller.name), self._queue.waiting_of(caller.name)
        if waiting < (share if caller.queue is None else min(share, caller.queue)):
            return
        whose = f" of the key `{caller.name}`" if caller.name else ""
        raise Overloaded(
            f"Model {self._model} has {waiting} requests{whose} waiting; try again soon.", retry_after=self._soon()
        )

    async def turn(self, ticket: Ticket, until: float | None) -> bool:
        """Wait until `ticket` is inside; False where it is not by `until`, of the loop's clock."""
        if not ticket.inside:
            await asyncio.wait((self._turns[ticket],), timeout=_left(until))
        return ticket.inside

    def leave(self, ticket: Ticket) -> None:
        """Its request has ended, was given up, or waits no longer; others come in."""
        if ticket.inside:
            self._ended.append(time.monotonic())
        self._queue.leave(ticket)
        self._turns.pop(ticket, None)
        while self._queue.waiting and (admitted := self._queue.admit()) is not None:
            turn = self._turns[admitted]
            if not turn.done():  # one whose client has just left is inside for the moment until its task hears of it
                turn.set_result(None)

    def _soon(self) -> float:
        """When a place in the queue will probably be free again, in seconds: one more request of each that waits."""
        if len(self._ended) < 2:
            return _SOONEST_S
        pace = (self._ended[-1] - self._ended[0]) / (len(self._ended) - 1)
        return min(_LATEST_S, max(_SOONEST_S, pace * self._queue.callers))


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - asyncio.get_running_loop().time())
