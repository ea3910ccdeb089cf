"""The part of `tiering` that moves weights: which models have any, which of them nobody asked for, and their run."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from config import Recipe
from config.policy import ModelTiersSpec
from server.models import cold_weights
from server.models.resident import Resident
from server.policies.process import run_apart
from server.policies.report import Report, Tell
from server.policies.tiering.choosing import unasked
from server.policies.tiering.uses import Uses
from server.policies.tiering.weights import Weights, Work


class ModelTier:
    """The weights of one recipe's models, and the models themselves where a server has them."""

    def __init__(
        self,
        recipe: Recipe,
        spec: ModelTiersSpec,
        uses: Uses,
        models: Mapping[str, Resident],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.uses = uses
        self._data = recipe.server.data
        self._specs = recipe.models
        self._spec = spec
        self._models = models
        self._clock = clock
        self._named: dict[Path, list[str]] = defaultdict(list)
        self._pinned: set[Path] = set()
        embedding = {each.embed for each in recipe.knowledge.values()}
        for name, model in recipe.models.items():
            for source in cold_weights.local_sources(model):
                self._named[source.path].append(name)
                # A collection cannot be opened without its model, so that one would be back with the next start.
                if getattr(model, "pin", False) or name in embedding:
                    self._pinned.add(source.path)

    async def run(self, tell: Tell) -> Report:
        """Raises what the place raises; the next run goes on with what is left."""
        assert self._spec.cold is not None, "without a place nothing moves"
        now = self._clock()
        await self.uses.note()
        since = await self.uses.since([path for path in self._named if not cold_weights.is_away(path)], now)
        chosen = unasked(since, self._pinned, self._spec.after.total_seconds(), now)
        busy = [path for path in chosen if not await self._freed(path)]
        going = [self._weights(path) for path in chosen if path not in busy]
        known = tuple(self._weights(path) for path in self._named)
        work = Work(self._spec.cold, known, tuple(going), self._data)
        report = await run_apart("server.policies.tiering", work, tell)
        told = tuple(f"{', '.join(self._named[path])}: stays, for it is in use" for path in busy)
        return Report(report.summary, report.figures, (*told, *report.details))

    def _weights(self, path: Path) -> Weights:
        names = tuple(self._named[path])
        return Weights(path, names, dict(self._cards(self._of(path))), tuple(self._specs[name] for name in names))

    def _of(self, path: Path) -> list[Resident]:
        return [self._models[name] for name in self._named[path] if name in self._models]

    def _cards(self, models: Iterable[Resident]) -> Iterator[tuple[str, bytes]]:
        for model in models:
            if model.told is not None:
                yield cold_weights.mark(model.spec), model.told

    async def _freed(self, path: Path) -> bool:
        """Have the models of these weights unloaded; False where one is in use."""
        for model in self._of(path):
            if model.is_loaded and not await model.make_room("to move its weights to cold storage"):
                return False
        return True
