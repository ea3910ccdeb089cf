"""NATS JetStream, with a real server."""

import json
from pathlib import Path

import nats
import pytest

from config.knowledge import NatsSource
from tests.knowledge.sources.brokers import free_port, nats_server
from tests.knowledge.sources.conftest import following

pytestmark = pytest.mark.anyio


def message(each: str, text: str | None, **more: object) -> bytes:
    return json.dumps({"id": each, "text": text, **more}).encode()


async def test_messages_become_documents_and_are_acknowledged_once_they_are_searchable(
    nats_url: str, tmp_path: Path
) -> None:
    client = await nats.connect(nats_url)
    try:
        js = client.jetstream()
        await js.add_stream(name="first", subjects=["first.>"])
        await js.publish("first.json", message("a", "Apples are red."))
        spec = NatsSource(nats=nats_url, stream="first", subject="first.>")
        async with following(spec, tmp_path) as followed:
            await followed.until_texts({"a": "Apples are red."})
            await js.publish("first.raw", b"Bears sleep.", headers={"Content-Type": "text/plain"})
            await js.publish("first.json", message("a", "Apples are green.", version=3))
            await js.publish("first.json", message("a", "Apples are blue.", version=2))
            await js.publish("first.json", b'{"id": 7}')
            await followed.until_texts({"a": "Apples are green.", "first.raw": "Bears sleep."})
            await js.publish("first.json", message("first.raw", None))
            await followed.until_texts({"a": "Apples are green."})
            assert ["id" in letter.reason for letter in await followed.letters()] == [True]

            async def acknowledged() -> bool:
                info = await js.consumer_info("first", "hearth-handbook")
                return bool(info.num_ack_pending == 0 and info.num_pending == 0)

            await followed.until(acknowledged)
    finally:
        await client.close()


async def test_a_key_value_bucket_is_a_source(nats_url: str, tmp_path: Path) -> None:
    client = await nats.connect(nats_url)
    try:
        bucket = await client.jetstream().create_key_value(bucket="pages")
        await bucket.put("apples", b"Apples are red.")
        await bucket.put("bears", b"Bears sleep.")
        async with following(NatsSource(nats=nats_url, stream="KV_pages"), tmp_path) as followed:
            await followed.until_texts({"$KV.pages.apples": "Apples are red.", "$KV.pages.bears": "Bears sleep."})
            await bucket.delete("bears")
            await followed.until_texts({"$KV.pages.apples": "Apples are red."})
    finally:
        await client.close()


async def test_a_stream_made_anew_is_read_from_its_beginning(nats_url: str, tmp_path: Path) -> None:
    client = await nats.connect(nats_url)
    try:
        js = client.jetstream()
        spec = NatsSource(nats=nats_url, stream="remade")
        for text in ("Apples are red.", "Apples are green."):
            await js.add_stream(name="remade", subjects=["remade"])
            await js.publish("remade", message("a", text))
            async with following(spec, tmp_path) as followed:
                await followed.until_texts({"a": text})
            await js.delete_stream("remade")
    finally:
        await client.close()


async def test_a_server_that_goes_away_is_told_and_followed_again(tmp_path: Path) -> None:
    port = free_port()
    with nats_server(tmp_path, port) as url:
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="away", subjects=["away"])
        await client.jetstream().publish("away", message("a", "Apples are red."))
        await client.close()
        opened = following(NatsSource(nats=url, stream="away"), tmp_path)
        followed = await opened.__aenter__()
        await followed.until_texts({"a": "Apples are red."})
    state = followed.follower.state

    async def waits() -> bool:
        return state.state == "waiting"

    try:
        await followed.until(waits)
        assert state.error
        with nats_server(tmp_path, port) as url:
            client = await nats.connect(url)
            await client.jetstream().publish("away", message("b", "Bears sleep."))
            await client.close()
            await followed.until_texts({"a": "Apples are red.", "b": "Bears sleep."})
    finally:
        await opened.__aexit__(None, None, None)


async def test_a_stream_that_is_not_there_is_told(nats_url: str, tmp_path: Path) -> None:
    async with following(NatsSource(nats=nats_url, stream="nowhere"), tmp_path) as followed:

        async def told() -> bool:
            return followed.follower.state.error == "there is no stream nowhere"

        await followed.until(told)
