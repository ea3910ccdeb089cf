"""Everything real for one recipe: its models and collections, started, watched and closed together. Knows no HTTP."""

import asyncio
import difflib
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from typing import Literal

from config import Recipe
from config.assistant import AssistantSpec
from config.model import RemoteModel as RemoteSpec
from server.errors import CollectionNotFound, InvalidValue, ModelNotFound
from server.files import Files
from server.gauges import gauges_of
from server.knowledge import (
    Collection,
    Current,
    Filter,
    Found,
    Hit,
    QueryCache,
    Refused,
    Shelf,
    Tier,
    TierName,
    reranked,
)
from server.knowledge.optimizer import Optimizer
from server.knowledge.tiering import query_cache_of, tell_of_lost, tiers_of
from server.models.cold_weights import Cold
from server.models.fallback import Switch
from server.models.model import Model
from server.models.remote import RemoteModel
from server.models.served import Served
from server.models.sharing import sharing_of
from server.state import State
from server.telemetry import Telemetry
from server.tools.toolbox import Toolbox
from server.vector_stores import VectorStores

Mode = Literal["hybrid", "vector", "text"]

VERSION = version("hearth")

NO_RANKER = "none"

_MOST_NAMES = 8
"""Of models, that a fault lists."""


@dataclass(frozen=True)
class Target:
    """What a model id stands for: a model, and the assistant that was asked for, if it was one."""

    id: str
    model: Served
    assistant: AssistantSpec | None
    fallback: "Fallback | None" = None
    joined: bool = False
    """Whether the id names collections, which a caller has to be allowed to search."""

    @cached_property
    def forwards(self) -> bool:
        """Whether its model is one of another server."""
        return isinstance(self.model, RemoteModel)

    @cached_property
    def may_forward(self) -> bool:
        """Whether its model or a fallback is one of another server."""
        return self.forwards or (self.fallback is not None and self.fallback.to.may_forward)

    @cached_property
    def computes(self) -> bool:
        """Whether its model or a fallback is one of this machine."""
        return not self.forwards or (self.fallback is not None and self.fallback.to.computes)

    def called(self, id: str) -> "Target":  # noqa: A002  (the word of the matter)
        """The same under another id."""
        fallback = self.fallback and replace(self.fallback, to=self.fallback.to.called(id))
        return replace(self, id=id, fallback=fallback)

    def knowing(self, collections: Sequence[str]) -> "Target":
        """The same with more knowledge."""
        spec = self.assistant or AssistantSpec(model=self.model.name)
        knowledge = tuple(dict.fromkeys((*spec.knowledge, *collections)))
        fallback = self.fallback and replace(self.fallback, to=self.fallback.to.knowing(collections))
        wider = spec.model_copy(update={"knowledge": knowledge})
        return replace(self, assistant=wider, fallback=fallback, joined=True)


@dataclass(frozen=True)
class Fallback:
    """Where requests of a target go that its model cannot take; `switch` is the model's, for all its ids."""

    switch: Switch
    to: Target


class Runtime:
    """One recipe made real. Make it with `build`; everything in it ends when that context does."""

    def __init__(
        self,
        recipe: Recipe,
        telemetry: Telemetry,
        state: State,
        models: dict[str, Served],
        shelves: dict[str, Shelf],
        files: Files,
        vector_stores: VectorStores,
        tiers: Mapping[str, Tier] | None = None,
        cache: QueryCache | None = None,
    ) -> None:
        self.recipe = recipe
        self.telemetry = telemetry
        self.state = state
        self.models = models
        self.shelves = shelves
        self.files = files
        self.vector_stores = vector_stores
        self.tiers = tiers or {}
        self.cache = cache
        self.tools = Toolbox(recipe.tools, self._hits, telemetry.tool)
        self.started = time.time()
        self.fingerprint = f"fp_{recipe.digest[:12]}"
        self._targets = _targets(recipe, models)
        self._openings = [name for name in self._targets if name.endswith("*")]
        telemetry.watch(gauges_of(models, shelves, cache))

    @classmethod
    @asynccontextmanager
    async def build(cls, recipe: Recipe) -> AsyncIterator["Runtime"]:
        """Start every model and collection of `recipe`; returns at once, while weights still load."""
        telemetry = Telemetry(recipe.server.telemetry, VERSION)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, telemetry.close)
            state = await stack.enter_async_context(State.open(recipe.server.data / "state.db"))
            models = {name: model_of(name, recipe, telemetry) for name in recipe.models}
            sharing = await sharing_of(recipe, [model for model in models.values() if isinstance(model, Model)])
            for model in models.values():
                await stack.enter_async_context(model)
            if sharing is not None:
                stack.push_async_callback(_end, [asyncio.create_task(sharing.begin())])
            tiers = tiers_of(recipe, state)
            await tell_of_lost(recipe, state)
            cache = query_cache_of(recipe)
            if cache is not None:
                stack.push_async_callback(cache.close)
            optimizer = await stack.enter_async_context(Optimizer())
            shelves = _shelves(recipe, models, state, telemetry, tiers, cache, optimizer)
            stack.push_async_callback(_end, [asyncio.create_task(shelf.keep()) for shelf in shelves.values()])
            files = await Files.open(state, recipe.server.data / "files")
            place = recipe.server.data / "vector_stores"
            stores = VectorStores(state, files, models, shelves, place, optimizer)
            await stack.enter_async_context(stores)
            runtime = cls(recipe, telemetry, state, models, shelves, files, stores, tiers, cache)
            await stack.enter_async_context(runtime.tools)
            yield runtime

    def target(self, model_id: str) -> Target:
        """What `model_id` names: a model, an alias, an assistant, or one of these with collections, as in
        model+collection. Raises ModelNotFound or CollectionNotFound with the nearest names.

        Of aliases that end with a star, the longest that fits counts, after all that are written out.
        """
        if (found := self._named(model_id)) is not None:
            return found
        near = sorted(self._targets, key=lambda name: (-_likeness(name, model_id[:200]), name))
        told = ", ".join(near[:_MOST_NAMES]) + (" and others" if len(near) > _MOST_NAMES else "")
        message = f"The model `{model_id[:200]}` does not exist. This server has: {told}."
        raise ModelNotFound(message, param="model")

    def _named(self, model_id: str) -> Target | None:
        if (found := self._targets.get(model_id)) is not None:
            return found
        named, *collections = model_id.split("+")
        if collections and all(name in self.vector_stores for name in collections):
            base = self._named(named)
            return None if base is None else base.called(model_id).knowing(collections)
        if opening := max((name for name in self._openings if model_id.startswith(name[:-1])), key=len, default=None):
            return self._targets[opening].called(model_id)
        if collections and named in self._targets:
            raise self._unknown(next(name for name in collections if name not in self.vector_stores), "model")
        return None

    @property
    def targets(self) -> Iterable[Target]:
        """All that have an id of their own, and so can be listed."""
        return [target for name, target in self._targets.items() if name not in self._openings]

    def collection(self, name: str) -> Collection:
        """An open collection. Raises CollectionNotFound with near names, KnowledgeUnavailable while it is not open."""
        if name not in self.vector_stores:
            raise self._unknown(name, "collections")
        return self.vector_stores.shelf(name).collection

    def declared(self, name: str) -> Collection:
        """As `collection`, of those that the recipe declares."""
        return self.shelf(name).collection

    def shelf(self, name: str) -> Shelf:
        """One that the recipe declares, open or not. Raises CollectionNotFound with near names."""
        if name not in self.shelves:
            raise self._unknown(name, "collection")
        return self.shelves[name]

    def _unknown(self, name: str, param: str) -> CollectionNotFound:
        near = difflib.get_close_matches(name, self.shelves, n=3, cutoff=0.4) or sorted(self.shelves)
        message = f"The collection `{name[:200]}` does not exist. This server has: {', '.join(near) or 'none'}."
        return CollectionNotFound(message, param=param)

    async def search(
        self,
        collection: Collection,
        query: str,
        *,
        k: int | None = None,
        mode: Mode | None = None,
        filters: Filter | None = None,
        weights: tuple[float, float] | None = None,
        as_of: int | None = None,
        tiers: Sequence[TierName] | None = None,
        ranker: str | None = None,
        depth: int | None = None,
    ) -> Found:
        """One search, measured.

        `ranker` is the model that orders the `depth` nearest anew, "none" for no such model; without it the recipe's is
        asked. Raises what the model raises: nothing comes back in an order that was not asked for.
        """
        started = time.perf_counter()
        spec = collection.spec.search
        name = spec.rerank if ranker is None else None if ranker == NO_RANKER else ranker
        reranker = None if name is None else self.reranker(name)
        wanted = spec.k if k is None else k
        read = wanted if reranker is None else depth or max(spec.rerank_depth, wanted)
        found = await collection.search(
            query, k=read, mode=mode, filters=filters, weights=weights, as_of=as_of, tiers=tiers
        )
        if reranker is not None:
            found = await reranked(found, query, reranker, wanted)
        elapsed = time.perf_counter() - started
        self.telemetry.search.collection(elapsed, collection.name, mode or collection.spec.search.mode)
        return found

    async def _hits(self, collection: str, query: str, k: int | None) -> list[Hit]:
        """For the tools that search."""
        searched = self.collection(collection)
        found = await self.search(searched, query, k=k)
        searched.read(found.hits)
        return list(found.hits)

    def reranker(self, name: str) -> Served:
        """The model under this id, where it is for rerank. Raises ModelNotFound or InvalidValue."""
        try:
            model = self.target(name).model
        except ModelNotFound as error:
            raise ModelNotFound(error.message, param="ranking_options.ranker") from error
        if model.spec.task != "rerank":
            message = f"The model `{name[:200]}` is for {model.spec.task}, not for rerank."
            raise InvalidValue(message, param="ranking_options.ranker")
        return model

    @property
    def waiting(self) -> list[str]:
        """What cannot answer yet, by name; empty when everything declared can."""
        models = [f"models.{name}" for name, model in self.models.items() if not model.available]
        return models + [f"knowledge.{name}" for name, shelf in self.shelves.items() if not shelf.opened]


def model_of(name: str, recipe: Recipe, telemetry: Telemetry) -> Served:
    """One declared model, not started yet."""
    spec = recipe.models[name]
    queue = spec.queue or recipe.server.limits.queue
    if isinstance(spec, RemoteSpec):
        return RemoteModel(name, spec, queue=queue, telemetry=telemetry)
    tiering = recipe.policies.tiering
    place = None if tiering is None or tiering.models is None else tiering.models.cold
    cold = Cold.of(place, os.environ)
    return Model(name, spec, queue=queue, data=recipe.server.data, telemetry=telemetry, cold=cold)


def _shelves(
    recipe: Recipe,
    models: dict[str, Served],
    state: State,
    telemetry: Telemetry,
    tiers: Mapping[str, Tier],
    cache: QueryCache | None,
    optimizer: Optimizer,
) -> dict[str, Shelf]:
    folder = recipe.server.data / "knowledge"
    shelves = {}
    for name, spec in recipe.knowledge.items():
        refused = Refused(state, name)
        collection = Collection(
            name,
            spec,
            models[spec.embed],
            folder / name,
            refused=refused,
            others=_embedders(models),
            tier=tiers.get(name),
            cache=cache,
            optimizer=optimizer,
        )
        current = Current(collection, state, folder, partial(telemetry.lag.source, collection=name))
        shelves[name] = Shelf(name, collection, models[spec.embed], current)
    return shelves


def _embedders(models: dict[str, Served]) -> list[Served]:
    return [model for model in models.values() if model.spec.task == "embed"]


def _targets(recipe: Recipe, models: dict[str, Served]) -> dict[str, Target]:
    declared = {name: spec.fallback for name, spec in recipe.models.items() if spec.fallback is not None}
    switches = {name: Switch(fallback.queue) for name, fallback in declared.items()}

    def target(model_id: str, name: str, assistant: AssistantSpec | None = None) -> Target:
        fallback = None
        if name in declared:  # a recipe's fallbacks never come back to where they began
            fallback = Fallback(switches[name], target(model_id, declared[name].to, assistant))
        return Target(model_id, models[name], assistant, fallback)

    targets = {name: target(name, name) for name in models}
    for name, spec in recipe.models.items():
        targets |= {alias: target(alias, name) for alias in spec.aliases}
    return targets | {name: target(name, spec.model, spec) for name, spec in recipe.assistants.items()}


def _likeness(name: str, asked: str) -> float:
    return difflib.SequenceMatcher(None, name, asked).ratio()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
