"""What a broker looks like to who follows it: batches of messages, committed once they are searchable."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from types import ModuleType
from typing import Protocol

from config.knowledge import KafkaSource, NatsSource, RedisSource
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Message

BATCH = 256
"""The most messages that are taken in together."""
IDLE_S = 1.0
"""How long an empty stream is waited on before the connection is looked at again."""


class SourceLost(Exception):
    """The broker cannot be reached, or does not do what is asked; the text says why. Connecting again may help."""


class Stream(Protocol):
    """One connection; every method raises SourceLost. The next batch may be asked for before the last is committed."""

    @property
    def behind(self) -> int | None:
        """Messages that were still to be read after the last batch; None where that is not known."""
        ...

    async def batch(self) -> list[Message]:
        """What is there now, at most BATCH, in the order of each partition; waits IDLE_S for a first one."""
        ...

    async def commit(self, batch: Sequence[Message]) -> None:
        """These need not be delivered again. May fail quietly where another reader has the partition now."""
        ...


StreamSpec = KafkaSource | RedisSource | NatsSource
Opening = Callable[[StreamSpec, str, Ledger], AbstractAsyncContextManager[Stream]]

_PACKAGES = {KafkaSource: ("kafka", "aiokafka"), RedisSource: ("redis", "redis"), NatsSource: ("nats", "nats")}


def connected(spec: StreamSpec, group: str, ledger: Ledger) -> AbstractAsyncContextManager[Stream]:
    """A stream of `spec`, read as a member of `group`. Raises SourceLost where its library is not installed."""
    name, package = _PACKAGES[type(spec)]
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise SourceLost(f"the package {package} is not installed; run: pip install hearth[{name}]") from error
    module: ModuleType = importlib.import_module(f"server.knowledge.sources.{name}_stream")
    opened: AbstractAsyncContextManager[Stream] = module.connected(spec, group, ledger)
    return opened
