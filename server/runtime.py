"""Everything real for one recipe: its models and collections, started, watched and closed together. Knows no HTTP."""

import asyncio
import difflib
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from config import Recipe
from config.assistant import AssistantSpec
from server.errors import CollectionNotFound, HearthError, KnowledgeUnavailable, ModelNotFound
from server.knowledge import Collection, CollectionStatus, Filter, Found
from server.models.model import Model
from server.telemetry import Gauges, Reading, Telemetry

log = logging.getLogger(__name__)

Mode = Literal["hybrid", "vector", "text"]

VERSION = version("hearth")


@dataclass(frozen=True)
class Target:
    """What a model id stands for: a model, and the assistant that was asked for, if it was one."""

    id: str
    model: Model
    assistant: AssistantSpec | None


class Shelf:
    """One collection's life in this runtime: opened when its embed model is ready, then kept up to date."""

    def __init__(self, name: str, collection: Collection, embedder: Model) -> None:
        self.name = name
        self.opened = False
        self.settled = False
        self.error: str | None = None
        self._collection = collection
        self._embedder = embedder
        self._done = asyncio.Event()

    @property
    def collection(self) -> Collection:
        """The open collection. Raises KnowledgeUnavailable while it cannot answer."""
        if self.opened:
            return self._collection
        if self.error is not None:
            raise KnowledgeUnavailable(f"Collection {self.name} could not be opened: {self.error}", retry_after=30)
        raise KnowledgeUnavailable(f"Collection {self.name} is being opened; try again soon.", retry_after=2)

    @property
    def state(self) -> str:
        if self.error is not None:
            return "failed"
        return "ready" if self.settled else "syncing" if self.opened else "opening"

    async def status(self) -> CollectionStatus | None:
        """What the collection tells of itself; None while it is not open."""
        return await self._collection.status() if self.opened else None

    async def ready(self) -> None:
        """Wait for the first sync. Raises KnowledgeUnavailable where the collection failed."""
        await self._done.wait()
        _ = self.collection

    async def keep(self) -> None:
        """Open, bring up to date, and hold open until cancelled. A fault is this collection's alone."""
        try:
            await self._embedder.ready()
            async with self._collection:
                self.opened = (await self._collection.status()).chunks > 0
                report = await self._collection.sync(lambda line: log.debug("%s: %s", self.name, line))
                log.info("collection %s: %s", self.name, report)
                self.opened = self.settled = True
                self._done.set()
                await asyncio.Event().wait()
        except (HearthError, OSError, ValueError, RuntimeError) as error:
            # LanceDB reports every fault of a table as one of these; the others keep serving.
            self.error = str(error)
            self._done.set()
            log.error("collection %s: %s", self.name, error)
        finally:
            self.opened = False


class Runtime:
    """One recipe made real. Make it with `build`; everything in it ends when that context does."""

    def __init__(self, recipe: Recipe, telemetry: Telemetry, models: dict[str, Model]) -> None:
        self.recipe = recipe
        self.telemetry = telemetry
        self.models = models
        self.started = time.time()
        self.fingerprint = f"fp_{recipe.digest[:12]}"
        folder = recipe.server.data / "knowledge"
        self.shelves = {
            name: Shelf(name, Collection(name, spec, models[spec.embed], folder / name), models[spec.embed])
            for name, spec in recipe.knowledge.items()
        }
        self._targets = _targets(recipe, models)
        telemetry.watch(self._gauges())

    @classmethod
    @asynccontextmanager
    async def build(cls, recipe: Recipe) -> AsyncIterator["Runtime"]:
        """Start every model and collection of `recipe`; returns at once, while weights still load."""
        telemetry = Telemetry(recipe.server.telemetry, VERSION)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
            models = {name: _model(name, recipe, telemetry) for name in recipe.models}
            for model in models.values():
                await stack.enter_async_context(model)
            runtime = cls(recipe, telemetry, models)
            stack.push_async_callback(_end, [asyncio.create_task(shelf.keep()) for shelf in runtime.shelves.values()])
            yield runtime

    def target(self, model_id: str) -> Target:
        """What `model_id` names: a model, an alias or an assistant. Raises ModelNotFound with the nearest names."""
        try:
            return self._targets[model_id]
        except KeyError:
            near = difflib.get_close_matches(model_id, self._targets, n=3, cutoff=0.4) or sorted(self._targets)
            message = f"The model `{model_id[:200]}` does not exist. This server has: {', '.join(near)}."
            raise ModelNotFound(message, param="model") from None

    @property
    def targets(self) -> Iterable[Target]:
        return self._targets.values()

    def collection(self, name: str) -> Collection:
        """An open collection. Raises CollectionNotFound with near names, KnowledgeUnavailable while it is not open."""
        if name not in self.shelves:
            near = difflib.get_close_matches(name, self.shelves, n=3, cutoff=0.4) or sorted(self.shelves)
            message = f"The collection `{name[:200]}` does not exist. This server has: {', '.join(near) or 'none'}."
            raise CollectionNotFound(message, param="collections")
        return self.shelves[name].collection

    async def search(
        self,
        collection: Collection,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filters: Filter | None = None,
        weights: tuple[float, float] | None = None,
    ) -> Found:
        """One search, measured."""
        started = time.perf_counter()
        found = await collection.search(query, k=k, mode=mode, filters=filters, weights=weights)
        elapsed = time.perf_counter() - started
        self.telemetry.search.collection(elapsed, collection.name, mode or collection.spec.search.mode)
        return found

    @property
    def waiting(self) -> list[str]:
        """What cannot answer yet, by name; empty when everything declared can."""
        models = [f"models.{name}" for name, model in self.models.items() if not model.available]
        return models + [f"knowledge.{name}" for name, shelf in self.shelves.items() if not shelf.opened]

    def _gauges(self) -> Gauges:
        def of_models(read: "Iterable[tuple[str, float]]") -> list[Reading]:
            return [(value, {"gen_ai.request.model": name}) for name, value in read]

        models = self.models.items()
        return Gauges(
            model_ready=lambda: of_models((name, float(model.available)) for name, model in models),
            model_in_flight=lambda: of_models((name, model.in_flight) for name, model in models),
            worker_restarts=lambda: of_models((name, model.restarts) for name, model in models),
            collection_ready=lambda: [
                (float(shelf.opened), {"hearth.collection": name}) for name, shelf in self.shelves.items()
            ],
        )


def _model(name: str, recipe: Recipe, telemetry: Telemetry) -> Model:
    spec = recipe.models[name]
    return Model(
        name, spec, queue=spec.queue or recipe.server.limits.queue, data=recipe.server.data, telemetry=telemetry
    )


def _targets(recipe: Recipe, models: dict[str, Model]) -> dict[str, Target]:
    targets = {name: Target(name, model, None) for name, model in models.items()}
    for name, spec in recipe.models.items():
        targets |= {alias: Target(alias, models[name], None) for alias in spec.aliases}
    return targets | {name: Target(name, models[spec.model], spec) for name, spec in recipe.assistants.items()}


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
