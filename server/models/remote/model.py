"""The gateway's handle on a model of another server: what is asked of it is forwarded, nothing is computed here."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from types import TracebackType
from typing import Literal, Self

from config.model import RemoteModel as RemoteSpec
from server.errors import (
    DeadlineExceeded,
    HearthError,
    InvalidValue,
    ModelUnavailable,
    RequestError,
    UnsupportedParameter,
    UpstreamFault,
)
from server.models.abilities import ABILITIES
from server.models.admission import Admission, charge_of
from server.models.caller import Charge
from server.models.engine import Card, Embed, Generate, Rerank, Tokens
from server.models.fair_queue import Room
from server.models.measured import Measured
from server.models.model import Embeddings, Reranked
from server.models.prompts import Prompts, Side
from server.models.remote.asking import Forwarded, body
from server.models.remote.events import Sent
from server.models.remote.reading import Answering, Piece, context_of, scores, tokens_read, vectors
from server.models.remote.upstream import Upstream
from server.models.route import ROUTE
from server.telemetry import Telemetry

log = logging.getLogger(__name__)

_ASK_AGAIN_S = 30.0
_DOWN_S = 5.0
_COUNTS_S = 10.0
"""How long the counts of an answer are waited for once its last word has come."""

_DRAIN_S = 1.0

_LEAST_CONTEXT = 512
"""What an embedder is taken to read at least where nobody says; chunks of documents are cut by it."""


class RemoteModel:
    """One declared model. An async context manager: entering asks the server for its list of models beside everything
    else, and waits for nothing, so that Hearth starts while that server is away.

    Requests may come from any task of the gateway's loop. As many as the recipe's `parallel` are with the server at
    once, and `queue` bounds how many wait. Requests marked local_only are refused.
    """

    restarts = 0
    pid = None
    progress = None

    def __init__(self, name: str, spec: RemoteSpec, *, queue: int, telemetry: Telemetry) -> None:
        self.name = name
        self.spec = spec
        self.created = int(time.time())
        self.in_flight = 0
        self.error: str | None = None
        self._model = spec.model or name
        self._admission = Admission(name, Room(spec.parallel, 0), queue)
        self._telemetry = telemetry
        self._upstream = Upstream(name, spec)
        self._context = spec.context
        self._prompts = Prompts.given(spec.prompts)
        self._dimension: int | None = None
        self._down_until = 0.0
        self._change = asyncio.Event()
        self._asked = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._upstream.__aenter__()
        self._asking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking
        await self._upstream.__aexit__(kind, error, trace)

    # ---- state --------------------------------------------------------------------------------------------------

    @property
    def state(self) -> Literal["ready", "failed"]:
        """failed for a few seconds after the server could not be reached; then the next request tries again."""
        return "failed" if time.monotonic() < self._down_until else "ready"

    @property
    def available(self) -> bool:
        """Always: whether the server answers is no condition for this one to be ready."""
        return True

    @property
    def queued(self) -> int:
        """How many requests wait for others to end."""
        return self._admission.waiting

    @property
    def card(self) -> Card:
        """What is known of the model; a `context` of 0 is not known."""
        least = _LEAST_CONTEXT if self.spec.task == "embed" else 0
        return Card(
            task=self.spec.task,
            description=f"{self._model} at {self.spec.url}: requests are forwarded.",
            context=self._context or least,
            engine="remote",
            dimension=self._dimension,
            prompts=self._prompts.by_side,
            identity=self._prompts.document,
            honours=ABILITIES["remote"],
            device="remote",
        )

    def dialect(self) -> None:
        """It is sent messages as they are."""

    def resize_queue(self, queue: int) -> None:
        """How many requests may wait from now on."""
        self._admission.resize(queue)

    async def load(self) -> None:
        """Does nothing: it is loaded where it is, or not."""

    async def unload(self) -> None:
        """Raises RequestError: nothing of it is in the memory of this machine."""
        raise RequestError(f"The model `{self.name}` is on another server, and not in memory here.", param="model")

    async def changes(self) -> AsyncGenerator[None, None]:
        """Once at the beginning, and whenever the server was found to answer or not. Never ends by itself."""
        while True:
            change = self._change
            yield
            await change.wait()

    async def ready(self, timeout: float | None = None) -> Card:
        """Wait for what may change the card of an embedder, by which documents are cut. Raises ModelUnavailable."""
        if self.spec.task == "embed" and self.spec.context is None:
            try:
                async with asyncio.timeout(timeout):
                    await self._asked.wait()
            except TimeoutError:
                raise ModelUnavailable(f"Model {self.name} cannot be reached: {self.error}", retry_after=30) from None
        return self.card

    async def _look(self) -> None:
        """Ask for the list of models until the server has answered."""
        while not self._asked.is_set():
            try:
                listed = await self._upstream.get("models")
                self._context = self._context or context_of(listed, self._model)
                self._heard(None)
            except LookupError:
                self._heard(f"the server's list of models has no {self._model}")
            except UpstreamFault as fault:  # it is there, though it has no list, or none for this key
                self._heard(fault.message if fault.status in (401, 403) else None)
            except HearthError as fault:
                self._tell(fault.message, self._down_until)
                log.warning("model %s: %s", self.name, fault.message)
                await asyncio.sleep(_ASK_AGAIN_S)

    def _heard(self, error: str | None) -> None:
        """The server has answered, `error` being what is wrong with it nevertheless."""
        if self.error != error or self._down_until:
            self._tell(error, 0.0)
        self._asked.set()

    def _tell(self, error: str | None, down_until: float) -> None:
        self.error, self._down_until = error, down_until
        self._change.set()
        self._change = asyncio.Event()

    # ---- requests -----------------------------------------------------------------------------------------------

    async def answer(self, asked: Forwarded) -> AsyncGenerator[list[Piece], None]:
        """The pieces of one answer, those that arrived together in one list; the very first list is empty, and says
        that the server has accepted the request.

        Raises UpstreamFault for what the server refuses or breaks off, and as `models.model.Model.generate` does.
        Leaving early closes the connection, by which the server hears of it.
        """
        request = Generate(list(asked.messages), None, asked.max_tokens, asked.prompt)
        path = "chat/completions" if asked.prompt is None else "completions"
        charge = charge_of(request)
        with Measured(self._telemetry, self.name, "chat") as measured:
            async with self._call(charge) as until, AsyncExitStack() as stack:
                stream = self._upstream.stream(path, body(asked, self._model))
                async with asyncio.timeout_at(until):
                    batches = await stack.enter_async_context(stream)
                yield []
                reading = Answering(self._upstream.teller)
                async with aclosing(self._pieces(batches, reading, until)) as pieces:
                    async for found in pieces:
                        measured.began()
                        yield found
                last = reading.end()
                charge.used = last.prompt_tokens + last.tokens
                measured.read, measured.written, measured.finished = last.prompt_tokens, last.tokens, True
                yield [last]
                await _drained(batches)

    async def _pieces(
        self, batches: AsyncGenerator[list[Sent], None], reading: Answering, until: float | None
    ) -> AsyncGenerator[list[Piece], None]:
        """All pieces but the last, which is known when this ends."""
        while not reading.finished:
            try:
                async with asyncio.timeout_at(until):
                    sent = await anext(batches, None)
            except TimeoutError:
                if reading.ending:
                    return
                raise
            if sent is None:
                return
            if pieces := reading.take(sent):
                yield pieces
            if reading.ending:
                soon = asyncio.get_running_loop().time() + _COUNTS_S
                until = soon if until is None else min(until, soon)

    async def embed(self, inputs: Sequence[str], side: Side | None = None, dimensions: int | None = None) -> Embeddings:
        """One vector a text, as the server gives it, of `dimensions` where given. Raises as `answer` does.

        What the recipe puts before texts of that `side` is sent with them.
        """
        before = self._prompts.before(side)
        texts = [f"{before}{text}" for text in inputs]
        return await self._embed(Embed(texts=texts), texts, dimensions)

    async def embed_tokens(
        self, tokens: Sequence[list[int]], side: Side | None = None, dimensions: int | None = None
    ) -> Embeddings:
        """As `embed`, for texts given as that server's token ids, before which no words can go."""
        if self._prompts.before(side):
            raise InvalidValue("Words go before this model's texts, so it takes no token ids.", param="input")
        return await self._embed(Embed(tokens=list(tokens)), list(tokens), dimensions)

    async def _embed(self, request: Embed, inputs: list[str] | list[list[int]], dimensions: int | None) -> Embeddings:
        asked: dict[str, object] = {"model": self._model, "input": inputs, "encoding_format": "base64"}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        told, tokens = await self._whole("embeddings", "embeddings", asked, charge_of(request))
        rows = vectors(told, len(inputs), self._upstream.teller)
        due, found = dimensions or self._dimension, rows.shape[1]
        if due not in (None, found):
            raise self._upstream.teller.broken(f"answered with vectors of {found} dimensions, where {due} are due")
        if dimensions is None:
            self._dimension = found
        return Embeddings(rows, tokens)

    async def rerank(self, query: str, documents: Sequence[str]) -> Reranked:
        """Scores as the server gives them. Raises as `answer` does."""
        texts = list(documents)
        asked: dict[str, object] = {"model": self._model, "query": query, "documents": texts}
        told, tokens = await self._whole("rerank", "rerank", asked, charge_of(Rerank(query, texts)))
        return Reranked(scores(told, len(documents), self._upstream.teller), tokens)

    async def _whole(self, operation: str, path: str, asked: dict[str, object], charge: Charge) -> tuple[object, int]:
        """The server's answer, and how many tokens it says it has read."""
        with Measured(self._telemetry, self.name, operation) as measured:
            async with self._call(charge) as until, asyncio.timeout_at(until):
                told: object = await self._upstream.post(path, asked)
            charge.used = tokens_read(told)
            measured.read, measured.finished = charge.used, True
        return told, charge.used

    async def tokenize(
        self, text: str, *, add_special: bool = True, parse_special: bool = True, pieces: bool = False
    ) -> Tokens:
        """Raises RequestError: that server alone has the tokenizer."""
        raise self._no_tokens()

    async def detokenize(self, tokens: Sequence[int]) -> str:
        """Raises RequestError, as `tokenize`."""
        raise self._no_tokens()

    async def count(self, request: Generate) -> int:
        """Raises RequestError, as `tokenize`."""
        raise self._no_tokens()

    def _no_tokens(self) -> RequestError:
        return RequestError(
            f"The model `{self.name}` is on another server, which alone can count its tokens.", param="model"
        )

    @asynccontextmanager
    async def _call(self, charge: Charge) -> AsyncGenerator[float | None, None]:
        """One request among those with the server; when it has to have ended, of the loop's clock."""
        if (route := ROUTE.get()) is not None and route.local_only:
            raise UnsupportedParameter(
                f"The model `{self.name}` is on another server, and this request may not leave this one.",
                param="local_only",
            )
        charge.reserve()
        self.in_flight += 1
        deadline = self.spec.deadline
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline.total_seconds()
        ticket = None
        try:
            ticket = self._admission.ask(charge)
            if not ticket.inside and not await self._admission.turn(ticket, until):
                raise TimeoutError
            yield until
            self._heard(None)
        except TimeoutError as error:
            raise DeadlineExceeded(f"Model {self.name} did not answer within its deadline of {deadline}.") from error
        except ModelUnavailable as fault:
            self._tell(fault.message, time.monotonic() + _DOWN_S)
            raise
        finally:
            self.in_flight -= 1
            if ticket is not None:
                self._admission.leave(ticket)
            charge.settle()


async def _drained(batches: AsyncGenerator[list[Sent], None]) -> None:
    """Read to the end of what is over, so that its connection serves the next request too."""
    with suppress(TimeoutError, HearthError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in batches:
                pass
