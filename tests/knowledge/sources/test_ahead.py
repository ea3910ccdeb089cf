"""The next batch of a stream is cut and embedded while the one before is written, and nothing else of it is done."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from config.knowledge import RedisSource
from server.knowledge.lock import WriteLock
from server.models.prompts import Side
from tests.knowledge.hashing import HashedWords, HashEmbedder
from tests.knowledge.sources.conftest import following
from tests.knowledge.sources.test_redis_stream import message

pytestmark = pytest.mark.anyio


class Listed(HashEmbedder):
    """Knows the texts it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    async def embed(self, inputs: Sequence[str], side: Side = "document") -> HashedWords:
        self.texts += inputs
        return await super().embed(inputs, side)


async def _pending(client: Any, stream: str) -> int:
    return int((await client.xpending(stream, "hearth-handbook"))["pending"])


async def test_a_batch_is_embedded_while_another_waits_to_be_written(redis_url: str, tmp_path: Path) -> None:
    embedder = Listed()
    async with (
        Redis.from_url(redis_url) as client,
        following(RedisSource(redis=redis_url, stream="ahead"), tmp_path, embedder) as followed,
    ):
        await client.xadd("ahead", message("a", "Apples are red."))
        await followed.until_texts({"a": "Apples are red."})

        async def embedded(word: str) -> None:
            async def is_there() -> bool:
                return any(word in text for text in embedder.texts)

            await followed.until(is_there)

        async with WriteLock(tmp_path / "table").held():
            await client.xadd("ahead", message("b", "Bears sleep."))
            await embedded("Bears")
            await client.xadd("ahead", message("c", "Cats hunt."))
            await embedded("Cats")
            assert await followed.texts() == {"a": "Apples are red."}
            assert await _pending(client, "ahead") == 2
        await followed.until_texts({"a": "Apples are red.", "b": "Bears sleep.", "c": "Cats hunt."})

        async def committed() -> bool:
            return await _pending(client, "ahead") == 0

        await followed.until(committed)
        assert [sum(word in text for text in embedder.texts) for word in ("Bears", "Cats")] == [1, 1]
        hit = (await followed.collection.search("cats hunt", k=1, mode="text")).hits[0].id
        found = await followed.collection.vectors([hit])
        [text] = [text for text in embedder.texts if "Cats" in text]
        assert np.allclose(found[hit], (await embedder.embed([text])).vectors[0], atol=1e-6)


async def test_what_is_here_or_outdated_is_not_embedded_ahead(redis_url: str, tmp_path: Path) -> None:
    embedder = Listed()
    async with (
        Redis.from_url(redis_url) as client,
        following(RedisSource(redis=redis_url, stream="known"), tmp_path, embedder) as followed,
    ):
        await client.xadd("known", message("a", "Apples are red.", version=2))
        await followed.until_texts({"a": "Apples are red."})
        await client.xadd("known", message("a", "Apples are blue.", version=1))
        await client.xadd("known", message("b", "Bears sleep."))
        await followed.until_texts({"a": "Apples are red.", "b": "Bears sleep."})
        await client.xadd("known", message("a", "Apples are red.", version=3))
        await client.xadd("known", message("c", "Cats hunt."))
        await followed.until_texts({"a": "Apples are red.", "b": "Bears sleep.", "c": "Cats hunt."})
    words = ("red", "blue", "Bears", "Cats")
    assert [sum(word in text for text in embedder.texts) for word in words] == [1, 0, 1, 1]
