"""An engine as a worker's service: the child process' side of a model. Imported by workers only, with their engine."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from config.model import EchoModel, WorkerSpec
from server.errors import HearthError
from server.models.cold_weights import Cold
from server.models.dialect import Dialect
from server.models.engine import (
    Count,
    Counted,
    Detokenize,
    Engine,
    Event,
    Failed,
    Lookup,
    Request,
    Tokenize,
    is_last,
)
from server.models.engines import create
from server.models.hub import Access
from server.worker import Item


@dataclass(frozen=True)
class EngineConfig:
    """What a worker is told at its start: the recipe's model section, and the data directory, which it may fill.

    Pickled: both ends are the same code, and the bytes come from the process that started this one.
    """

    spec: WorkerSpec
    data: Path
    access: Access | None = None
    """How weights are fetched; for a model that may, and no other: it can hold a token."""
    cold: Cold | None = None
    """Where weights that nobody asked for may be; for a model whose files are the user's own."""

    def encode(self) -> bytes:
        return pickle.dumps(self)


_requests: msgspec.msgpack.Decoder[Request | Lookup] = msgspec.msgpack.Decoder(Request | Lookup)
_events = msgspec.msgpack.Encoder()
_cards = msgspec.msgpack.Encoder()


class EngineService:
    """Adapts one Engine to the worker's bytes; the worker's owner thread calls every method."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def open(self, config: bytes, progress: Callable[[str], None]) -> bytes:
        told: EngineConfig = pickle.loads(config)
        self._engine, choice = create(told.spec, told.data, progress, told.access, told.cold)
        if choice.reason is not None:
            progress(f"engine {choice.engine}: {choice.reason}")
        card = self._engine.load(progress)
        try:
            Dialect(card)  # a template that does not compile is a fault of the weights, told before anybody asks
        except ValueError as error:
            where = "" if isinstance(told.spec, EchoModel) else f"{told.spec.source}: "
            raise ValueError(f"{where}{error}") from error
        return _cards.encode(msgspec.structs.replace(card, engine=choice.engine, reason=choice.reason))

    def submit(self, call: int, body: bytes) -> list[Item]:
        try:
            return [_item(call, self._first(call, _requests.decode(body)))]
        except HearthError as error:
            return [_item(call, Failed.of(error))]

    def _first(self, call: int, request: Request | Lookup) -> Event:
        """The first event of a request, which is the only one of a lookup."""
        match request:
            case Tokenize():
                return self._ready.tokenize(request)
            case Detokenize():
                return self._ready.detokenize(request)
            case Count():
                return Counted(self._ready.count(request.request))
            case _:
                return self._ready.submit(call, request)

    def step(self) -> list[Item]:
        return [_item(call, event) for call, event in self._ready.step()]

    def cancel(self, call: int) -> None:
        self._ready.cancel(call)

    @property
    def busy(self) -> bool:
        return self._engine is not None and self._engine.busy

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    @property
    def _ready(self) -> Engine:
        assert self._engine is not None, "the worker opens its service before it uses it"
        return self._engine


def _item(call: int, event: Event) -> Item:
    return Item(call, _events.encode(event), is_last(event))
