"""Redis Streams, with a real server."""

import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from config.knowledge import RedisSource
from tests.knowledge.hashing import HashEmbedder
from tests.knowledge.sources.brokers import free_port, redis_server
from tests.knowledge.sources.conftest import following

pytestmark = pytest.mark.anyio


def message(each: str, text: str | None, **more: object) -> dict[str, str]:
    return {"value": json.dumps({"id": each, "text": text, **more})}


async def test_messages_become_documents_and_are_acknowledged_once_they_are_searchable(
    redis_url: str, tmp_path: Path
) -> None:
    spec = RedisSource(redis=redis_url, stream="first")
    async with Redis.from_url(redis_url) as client:
        await client.xadd("first", message("a", "Apples are red.", title="Apples", attributes={"year": 2024}))
        async with following(spec, tmp_path) as followed:
            await followed.until_texts({"a": "Apples are red."})
            await client.xadd("first", {"value": "Bears sleep.", "key": "b", "content-type": "text/plain"})
            await client.xadd("first", message("a", "Apples are green."))
            await client.xadd("first", {"anything": json.dumps({"id": "c", "text": "Cats hunt."})})
            await followed.until_texts({"a": "Apples are green.", "b": "Bears sleep.", "c": "Cats hunt."})
            await client.xadd("first", message("b", None))
            await followed.until_texts({"a": "Apples are green.", "c": "Cats hunt."})
            hits = (await followed.collection.search("green apples")).hits
            assert (hits[0].document_id, hits[0].uri) == ("a", "a")
            assert len(followed.lags) >= 4

            async def acknowledged() -> bool:
                pending = await client.xpending("first", "hearth-handbook")
                return bool(pending["pending"] == 0)

            await followed.until(acknowledged)


async def test_what_was_not_acknowledged_comes_again_and_changes_nothing(redis_url: str, tmp_path: Path) -> None:
    spec = RedisSource(redis=redis_url, stream="again")
    async with Redis.from_url(redis_url) as client:
        embedder = HashEmbedder()
        async with following(spec, tmp_path, embedder) as followed:
            for n in range(3):
                await client.xadd("again", message("a", f"Apples number {n}."))
            await followed.until_texts({"a": "Apples number 2."})
        embedded = embedder.inputs
        # As if the process had ended before it acknowledged any of them.
        await client.xgroup_setid("again", "hearth-handbook", id="0")
        async with following(spec, tmp_path, embedder) as followed:
            await client.xadd("again", message("b", "Bears sleep."))
            await followed.until_texts({"a": "Apples number 2.", "b": "Bears sleep."})
            assert followed.follower.state.messages >= 4
        assert embedder.inputs <= embedded + 4  # opening asks for one vector, and there are "b" and its self-test


async def test_a_new_data_directory_reads_the_stream_from_its_beginning(redis_url: str, tmp_path: Path) -> None:
    spec = RedisSource(redis=redis_url, stream="anew")
    async with Redis.from_url(redis_url) as client:
        await client.xadd("anew", message("a", "Apples are red."))
        for folder in ("one", "two"):
            async with following(spec, tmp_path / folder) as followed:
                await followed.until_texts({"a": "Apples are red."})


async def test_a_poisonous_message_goes_to_the_dead_letters_and_the_rest_goes_on(
    redis_url: str, tmp_path: Path
) -> None:
    spec = RedisSource(redis=redis_url, stream="poison")
    async with Redis.from_url(redis_url) as client, following(spec, tmp_path) as followed:
        for value in (
            '{"id": "x", "text": ',
            '{"id": "x"}',
            '{"id": "x", "text": "T", "tytle": "x"}',
            '{"id": "x", "text": " "}',
            '{"id": "", "text": "T"}',
            '{"id": "x", "text": "T", "attributes": {"year": "soon"}}',
            '{"id": "x", "text": "T", "attributes": {"colour": "red"}}',
            '{"id": "x", "text": "T", "version": -1}',
            "raw text without a key",
        ):
            await client.xadd("poison", {"value": value})
        await client.xadd("poison", {"value": b"\xff\xfe\x00", "content-type": "image/png", "key": "x"})
        await client.xadd("poison", message("good", "Apples are red."))
        await followed.until_texts({"good": "Apples are red."})
        letters = await followed.letters()
        assert len(letters) == 10
        reasons = " | ".join(letter.reason for letter in reversed(letters))
        for said in ("not JSON", "`text` is missing", "tytle", "no text", "1 to 512", "year", "colour", "version",
                     "no id", "image/png"):  # fmt: skip
            assert said in reasons
        assert letters[-1].excerpt.startswith('{"id": "x"')
        assert letters[-1].source == "redis:poison"


async def test_a_server_that_goes_away_is_told_and_followed_again(tmp_path: Path) -> None:
    port = free_port()
    with redis_server(tmp_path, port) as url:
        spec = RedisSource(redis=url, stream="away")
        async with following(spec, tmp_path) as followed:
            async with Redis.from_url(url) as client:
                await client.xadd("away", message("a", "Apples are red."))
            await followed.until_texts({"a": "Apples are red."})
            break_off = followed
            state = break_off.follower.state

            async def waits() -> bool:
                return state.state == "waiting"

            async with Redis.from_url(url) as client:
                await client.shutdown(nosave=True)
            await break_off.until(waits)
            assert state.error
            with redis_server(tmp_path, port):
                async with Redis.from_url(url) as client:
                    await client.xadd("away", message("b", "Bears sleep."))
                await break_off.until_texts({"a": "Apples are red.", "b": "Bears sleep."})
                assert (state.state, state.error) == ("following", None)
