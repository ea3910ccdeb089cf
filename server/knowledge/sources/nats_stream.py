"""A NATS JetStream stream, read through a durable pull consumer. A raw message's id is its subject.

A key-value bucket is a stream too: what is deleted there is deleted here.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from config.knowledge import NatsSource
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Message
from server.knowledge.sources.stream import BATCH, IDLE_S, SourceLost

T = TypeVar("T")

_CONNECT_S = 5.0
_AGAIN_S = 0.1
_ACK_WAIT_S = 60.0
_DELETED = frozenset({"DEL", "PURGE"})


@asynccontextmanager
async def connected(spec: NatsSource, group: str, ledger: Ledger) -> AsyncIterator["NatsStream"]:
    with _faults():
        client = await _detached(
            nats.connect(
                spec.nats,
                user=spec.username,
                password=None if spec.password is None else spec.password.get_secret_value(),
                connect_timeout=_CONNECT_S,
                max_reconnect_attempts=1,  # at this one connecting
                reconnect_time_wait=_AGAIN_S,
                allow_reconnect=False,  # who follows this connects again, and says so meanwhile
                error_cb=_told_where_asked,
            )
        )
    try:
        yield await _bound(client, spec, group.replace(".", "_"), ledger)
    finally:
        if not client.is_closed:
            with suppress(Error, OSError):
                await _detached(client.close())


async def _bound(client: Client, spec: NatsSource, durable: str, ledger: Ledger) -> "NatsStream":
    js = client.jetstream()
    with _faults():
        try:
            info = await js.stream_info(spec.stream)
        except NotFoundError as error:
            raise SourceLost(f"there is no stream {spec.stream}") from error
        # A stream that was made anew counts from 1 again: it is another partition.
        partition = f"{spec.stream}@{info.created.isoformat() if info.created else ''}"
        if not await ledger.positions():
            with suppress(NotFoundError):
                await js.delete_consumer(spec.stream, durable)
        config = ConsumerConfig(
            durable_name=durable,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=_ACK_WAIT_S,
            max_ack_pending=4 * BATCH,
            filter_subject=spec.subject or ">",
        )
        subscription = await js.pull_subscribe(spec.subject or ">", durable, spec.stream, config)
    await ledger.reached({partition: -1})
    return NatsStream(client, subscription, partition)


class NatsStream:
    def __init__(self, client: Client, subscription: JetStreamContext.PullSubscription, partition: str) -> None:
        self._client = client
        self._subscription = subscription
        self._partition = partition
        self._behind: int | None = None
        self._open: dict[int, Msg] = {}

    @property
    def behind(self) -> int | None:
        return self._behind

    async def batch(self) -> list[Message]:
        if self._client.is_closed:
            raise SourceLost("the connection was closed")
        with _faults():
            try:
                fetched = await _detached(self._subscription.fetch(BATCH, timeout=IDLE_S))
            except TimeoutError:
                return []
        self._behind = min((each.metadata.num_pending for each in fetched), default=None)
        return sorted((self._message(each) for each in fetched), key=lambda message: message.offset)

    async def commit(self, batch: Sequence[Message]) -> None:
        with _faults():
            for message in batch:
                # One that was given out again meanwhile came twice, and is acknowledged already.
                if (raw := self._open.pop(message.offset, None)) is not None:
                    await raw.ack()
            await self._client.flush()

    def _message(self, raw: Msg) -> Message:
        about = raw.metadata
        self._open[about.sequence.stream] = raw
        headers = raw.headers or {}
        deleted = headers.get("KV-Operation") in _DELETED
        return Message(
            partition=self._partition,
            offset=about.sequence.stream,
            key=raw.subject,
            value=None if deleted else raw.data,
            content_type=headers.get("Content-Type") or headers.get("content-type"),
            at=about.timestamp.timestamp(),
        )


async def _detached(asked: Coroutine[Any, Any, T]) -> T:
    """As awaiting it, but bounded and open to cancellation, which the client takes for a lost connection."""
    task = asyncio.create_task(asked)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # where nobody waits any more
    try:
        done, _ = await asyncio.wait({task}, timeout=2 * _CONNECT_S)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError("the server does not answer")
    return task.result()


async def _told_where_asked(_error: Exception) -> None:
    """The client's own report of a lost connection; the next fetch fails and says the same."""


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (Error, OSError) as error:
        raise SourceLost(str(error) or type(error).__name__) from error
