"""Collections that follow streams, over brokers that run for the whole session."""
# ruff: noqa: ASYNC110  (it polls what another task does, and changes small local files)

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from config.knowledge import ChunkSpec, CollectionSpec
from server.knowledge import Collection
from server.knowledge.sources import kafka_stream
from server.knowledge.sources.dead_letters import DeadLetter, DeadLetters
from server.knowledge.sources.follow import Follower
from server.knowledge.sources.ledger import Ledger
from server.knowledge.sources.stream import StreamSpec
from server.state import State
from tests.knowledge.hashing import HashEmbedder
from tests.knowledge.sources.brokers import kafka_broker, nats_server, redis_server

_PATIENCE_S = 20
SESSION_MS = 3000


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats")) as url:
        yield url


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where members are missed soon: this broker also takes half that time to let one join."""
    with pytest.MonkeyPatch.context() as patch, kafka_broker(tmp_path_factory.mktemp("kafka")) as brokers:
        patch.setattr(kafka_stream, "_SESSION_MS", SESSION_MS)
        yield brokers


@dataclass
class Followed:
    """A collection whose source is followed."""

    collection: Collection
    follower: Follower
    state: State
    lags: list[float]
    embedder: HashEmbedder

    async def texts(self) -> dict[str, str]:
        """What every document says now."""
        held = [await self.collection.document(each.id) for each in await self.collection.documents()]
        return {each.document.id: each.document.text for each in held if each is not None}

    async def letters(self) -> list[DeadLetter]:
        """Newest first."""
        return list(reversed(await DeadLetters(self.state, "handbook").every()))

    async def until(self, done: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(_PATIENCE_S):
            while not await done():
                await asyncio.sleep(0.02)  # polling what another task does

    async def until_texts(self, wanted: dict[str, str]) -> None:
        async def done() -> bool:
            return await self.texts() == wanted

        try:
            await self.until(done)
        except TimeoutError:
            assert await self.texts() == wanted, self.follower.state
            raise


@asynccontextmanager
async def following(spec: StreamSpec, folder: Path, embedder: HashEmbedder | None = None) -> AsyncIterator[Followed]:
    """A collection under `folder` that follows `spec` while the block lasts."""
    embedder = embedder or HashEmbedder()
    declared = CollectionSpec(
        embed="embed",
        sources=(spec,),
        chunk=ChunkSpec(tokens=60, overlap=10),
        attributes={"team": "string", "year": "int"},
    )
    lags: list[float] = []
    async with (
        State.open(folder / "state.db") as state,
        Collection("handbook", declared, embedder, folder / "table") as collection,
    ):
        ledger = Ledger(state, folder / "handbook.lock", "handbook", spec.name)
        follower = Follower(spec, "hearth-handbook", ledger, collection, lags.append)
        task = asyncio.create_task(follower.run())
        try:
            yield Followed(collection, follower, state, lags, embedder)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
