"""Members of one consumer group, each in a process of its own over one data directory: they share a topic's messages.

One joins, one leaves, one is killed amid a batch; every message is in force in the end, by whoever took it in.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from config.knowledge import KafkaSource
from tests.knowledge.sources.conftest import SESSION_MS, Followed, following
from tests.knowledge.sources.member import ENDLESS
from tests.knowledge.sources.test_kafka_stream import PARTITIONS, message, producing

pytestmark = pytest.mark.anyio

ROUNDS = 200


@dataclass
class Member:
    """Another process. `messages` are those it took in."""

    process: asyncio.subprocess.Process
    messages: int = 0
    is_stuck: bool = False
    said: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            self.messages, self.is_stuck = told["messages"], told["is_stuck"]
            self.said.set()


@asynccontextmanager
async def member(brokers: str, topic: str, folder: Path) -> AsyncIterator[Member]:
    command = [sys.executable, "-m", "tests.knowledge.sources.member", brokers, topic, str(folder), str(SESSION_MS)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    found = Member(process)
    listening = asyncio.create_task(found.listen())
    try:
        yield found
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


class Topic:
    """Sends rounds of messages, one to each partition, and knows which texts there should be."""

    def __init__(self, producer: AIOKafkaProducer, name: str, first: Followed) -> None:
        self.wanted: dict[str, str] = {}
        self.first = first
        self._producer = producer
        self._name = name
        self._round = 0

    async def send(self, text: str) -> None:
        self._round += 1
        for partition in range(PARTITIONS):
            each = f"doc{self._round % 2}-{partition}"
            self.wanted[each] = f"{text} {self._round}."
            await self._producer.send_and_wait(self._name, message(each, self.wanted[each]), partition=partition)

    async def until_shared_by(self, *others: Member) -> None:
        """Rounds until each took in some messages of one, and none twice."""
        for _ in range(ROUNDS):
            before = self._counts(others)
            await self.send("Bears sleep in round")
            await self.first.until_texts(self.wanted)

            async def are_told(before: list[int] = before) -> bool:
                return sum(self._counts(others)) - sum(before) >= PARTITIONS

            await self.first.until(are_told)
            took = [now - then for now, then in zip(self._counts(others), before, strict=True)]
            if all(took) and sum(took) == PARTITIONS:
                return
        raise AssertionError(f"after {ROUNDS} rounds a member had still nothing: {took}")

    def _counts(self, others: tuple[Member, ...]) -> list[int]:
        return [self.first.follower.state.messages, *(each.messages for each in others)]


async def test_members_join_leave_and_are_killed_and_no_message_is_lost(kafka: str, tmp_path: Path) -> None:
    name = "grouped"
    spec = KafkaSource(kafka=kafka, topic=name)
    async with (
        producing(kafka, name) as producer,
        member(kafka, name, tmp_path) as leaving,
        following(spec, tmp_path) as first,
    ):
        topic = Topic(producer, name, first)
        await topic.until_shared_by(leaving)
        async with member(kafka, name, tmp_path) as killed:
            await topic.until_shared_by(leaving, killed)  # one joined
            leaving.process.terminate()
            assert await asyncio.wait_for(leaving.process.wait(), 20) == 0
            await topic.until_shared_by(killed)  # one left, and nothing that it had taken in came again
            await topic.send(f"Bears sleep {ENDLESS} in round")

            async def is_stuck() -> bool:
                return killed.is_stuck

            await first.until(is_stuck)
        await first.until_texts(topic.wanted)  # what one had begun when it was killed is delivered to another
        await topic.until_shared_by()
