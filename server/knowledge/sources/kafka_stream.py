"""A Kafka topic, read as a member of a consumer group. A message's id is its key, or the one its JSON says."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from config.knowledge import KafkaSource
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.message import Message
from server.knowledge.sources.stream import BATCH, IDLE_S, SourceLost

_POLL_LIMIT_MS = 30 * 60 * 1000
"""How long one batch may take before the group gives its partitions away."""
_FETCH_WAIT_MS = 20
_SESSION_MS = 10_000
"""How long a member may be silent before the group takes it for dead."""
_HEARTBEAT_MS = 500
"""A member hears with a heartbeat that another one came or left, and its partitions rest until it has."""


@asynccontextmanager
async def connected(spec: KafkaSource, group: str, ledger: Ledger) -> AsyncIterator["KafkaStream"]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=spec.kafka.replace(" ", "").split(","),
        group_id=group,
        client_id="hearth",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_poll_interval_ms=_POLL_LIMIT_MS,
        session_timeout_ms=_SESSION_MS,
        heartbeat_interval_ms=_HEARTBEAT_MS,
        **_security(spec),
    )
    stream = KafkaStream(consumer, spec.topic, ledger)
    try:
        with _faults():
            consumer.subscribe([spec.topic], listener=_Turns(stream))
            await consumer.start()
        yield stream
    finally:
        with suppress(KafkaError, OSError):
            await consumer.stop()


def _security(spec: KafkaSource) -> dict[str, object]:
    found: dict[str, object] = {"security_protocol": "SSL" if spec.tls else "PLAINTEXT"}
    if spec.tls:
        found["ssl_context"] = ssl.create_default_context()
    if spec.username is not None and spec.password is not None:
        found |= {
            "security_protocol": "SASL_SSL" if spec.tls else "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": spec.username,
            "sasl_plain_password": spec.password.get_secret_value(),
        }
    return found


class KafkaStream:
    """A partition changes hands only while no batch is under way: `batch` begins one and `commit` ends it."""

    def __init__(self, consumer: AIOKafkaConsumer, topic: str, ledger: Ledger) -> None:
        self._consumer = consumer
        self._topic = topic
        self._ledger = ledger
        self._behind: int | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def behind(self) -> int | None:
        return self._behind

    async def batch(self) -> list[Message]:
        with _faults():
            # Waits while a partition is about to change hands: those under way end, and none begins.
            read = await self._consumer.getmany(timeout_ms=int(1000 * IDLE_S), max_records=BATCH)
            if not read:
                await self._look()
                return []
        self._under_way += 1
        self._idle.clear()
        self._behind = self._unread(read)
        # Between getmany and here nothing was awaited, so no partition has changed hands.
        return [_message(record) for records in read.values() for record in records]

    async def commit(self, batch: Sequence[Message]) -> None:
        ends = {TopicPartition(self._topic, int(each.partition)): each.offset + 1 for each in batch}
        try:
            # Another reader has the partition now: it gets these again, and finds that they are in force already.
            with _faults(), suppress(CommitFailedError, IllegalStateError):
                await self._consumer.commit(ends)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def settled(self) -> None:
        """Wait for the end of the batches that are being taken in."""
        await self._idle.wait()

    async def begin(self, assigned: Iterable[TopicPartition]) -> None:
        """Read a partition from its beginning where nothing here knows of it, or where its log was made anew."""
        known = await self._ledger.positions()
        partitions = list(assigned)
        ends = await self._consumer.end_offsets(partitions) if partitions else {}
        for each in partitions:
            name = str(each.partition)
            if name in known and ends[each] <= known[name]:
                await self._ledger.forget(name)
                del known[name]
            if name not in known:
                await self._consumer.seek_to_beginning(each)
                await self._ledger.reached({name: -1})

    def _unread(self, read: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> int:
        """Of the partitions in this batch; the broker told their ends with it."""
        ends = {each: self._consumer.highwater(each) for each in read}
        return sum(max(0, end - read[each][-1].offset - 1) for each, end in ends.items() if end is not None)

    async def _look(self) -> None:
        """An idle consumer hides that its brokers are gone; asking for the topic's ends does not."""
        async with asyncio.timeout(10 * IDLE_S):
            await self._consumer.end_offsets(list(self._consumer.assignment())[:1] or [])


class _Turns(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, stream: KafkaStream) -> None:
        self._stream = stream

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._stream.settled()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._stream.begin(assigned)


def _message(record: ConsumerRecord) -> Message:
    headers = {name.lower(): value for name, value in record.headers}
    media = headers.get("content-type")
    return Message(
        partition=str(record.partition),
        offset=record.offset,
        key=None if record.key is None else record.key.decode("utf-8", "replace"),
        value=record.value,
        content_type=None if media is None else media.decode("latin-1"),
        at=record.timestamp / 1000,
    )


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise SourceLost(str(error) or type(error).__name__) from error
