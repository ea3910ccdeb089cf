"""Kafka over TCP: a broker in another process, spoken to by the client the product uses."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from config.knowledge import KafkaSource
from tests.knowledge.hashing import HashEmbedder
from tests.knowledge.sources.conftest import following

pytestmark = pytest.mark.anyio


PARTITIONS = 4


@asynccontextmanager
async def producing(brokers: str, topic: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer, and the topic it may send to."""
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=brokers)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


def message(each: str, text: str | None, **more: object) -> bytes:
    return json.dumps({"id": each, "text": text, **more}).encode()


async def test_messages_become_documents_and_their_offsets_are_committed(kafka: str, tmp_path: Path) -> None:
    async with producing(kafka, "first") as producer:
        await producer.send_and_wait("first", message("a", "Apples are red."), partition=0)
        embedder = HashEmbedder()
        async with following(KafkaSource(kafka=kafka, topic="first"), tmp_path, embedder) as followed:
            await followed.until_texts({"a": "Apples are red."})
            await producer.send_and_wait("first", message("a", "Apples are green."), partition=0)
            await producer.send_and_wait("first", b"Bears sleep.", key=b"b", partition=1)
            await producer.send_and_wait("first", b"\xff\xfe\xfa", key=b"broken", partition=1)
            await producer.send_and_wait("first", b"no key", partition=1)
            await producer.send_and_wait("first", message("c", "Cats hunt."), partition=2)
            await followed.until_texts({"a": "Apples are green.", "b": "Bears sleep.", "c": "Cats hunt."})
            await producer.send_and_wait("first", None, key=b"b", partition=1)
            await followed.until_texts({"a": "Apples are green.", "c": "Cats hunt."})
            assert len(await followed.letters()) == 2

            async def all_messages() -> bool:
                return followed.follower.state.messages >= 7

            await followed.until(all_messages)
        async with following(KafkaSource(kafka=kafka, topic="first"), tmp_path, embedder) as followed:
            await producer.send_and_wait("first", message("d", "Dogs bark."), partition=0)
            await followed.until_texts({"a": "Apples are green.", "c": "Cats hunt.", "d": "Dogs bark."})


async def test_a_reader_goes_on_where_another_of_its_group_ended(kafka: str, tmp_path: Path) -> None:
    spec = KafkaSource(kafka=kafka, topic="shared")
    documents = [f"doc{n}" for n in range(24)]
    async with producing(kafka, "shared") as producer:
        for text in ("The first round.", "The second round."):
            for each in documents:
                await producer.send_and_wait("shared", message(each, text), key=each.encode())
            async with following(spec, tmp_path) as followed:
                await followed.until_texts(dict.fromkeys(documents, text))


async def test_what_a_member_left_uncommitted_is_delivered_to_the_next_one(kafka: str, tmp_path: Path) -> None:
    """The first member reads and cannot take in; it leaves its group, and the partitions go to who joins it."""
    spec = KafkaSource(kafka=kafka, topic="handed-over")
    broken = HashEmbedder()
    broken.fail_on = "Bears"
    async with producing(kafka, "handed-over") as producer:
        await producer.send_and_wait("handed-over", message("a", "Apples are red."), partition=0)
        async with following(spec, tmp_path, broken) as followed:
            await followed.until_texts({"a": "Apples are red."})
            for n in range(4):
                await producer.send_and_wait("handed-over", message(f"b{n}", f"Bears number {n}."), partition=n % 4)

            async def waits() -> bool:
                return followed.follower.state.state == "waiting"

            await followed.until(waits)
            assert await followed.texts() == {"a": "Apples are red."}
        async with following(spec, tmp_path) as followed:
            await followed.until_texts({"a": "Apples are red."} | {f"b{n}": f"Bears number {n}." for n in range(4)})


async def test_a_new_data_directory_reads_the_topic_from_its_beginning(kafka: str, tmp_path: Path) -> None:
    spec = KafkaSource(kafka=kafka, topic="anew")
    async with producing(kafka, "anew") as producer:
        await producer.send_and_wait("anew", message("a", "Apples are red."))
        for folder in ("one", "two"):
            async with following(spec, tmp_path / folder) as followed:
                await followed.until_texts({"a": "Apples are red."})


async def test_brokers_that_cannot_be_reached_are_told(tmp_path: Path) -> None:
    async with following(KafkaSource(kafka="127.0.0.1:9", topic="nowhere"), tmp_path) as followed:

        async def waits() -> bool:
            return followed.follower.state.state == "waiting"

        await followed.until(waits)
        assert "127.0.0.1" in (followed.follower.state.error or "")
