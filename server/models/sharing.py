"""Memory that models share: who makes room before one more is loaded. What each takes is an estimate, known before."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from config import Recipe
from server.errors import ModelUnavailable, ServiceError
from server.models.fit import plans
from server.models.resident import Resident

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_PATIENCE_S = 600.0


@dataclass(frozen=True)
class Occupant:
    """One loaded model: what it takes, whether it may be unloaded now or ever, and when it was last used."""

    name: str
    bytes: int
    is_idle: bool
    is_pinned: bool
    used: float


def making_room(wanted: int, budget: int, loaded: Iterable[Occupant]) -> list[str] | None:
    """Which models to unload so that `wanted` more bytes fit, those unused for longest first.

    None where the idle ones do not suffice.
    """
    occupants = list(loaded)
    free = budget - sum(each.bytes for each in occupants)
    leaving: list[str] = []
    idle = [each for each in occupants if each.is_idle and not each.is_pinned]
    for each in sorted(idle, key=lambda each: (each.used, each.name)):
        if free >= wanted:
            break
        leaving.append(each.name)
        free += each.bytes
    return leaving if free >= wanted else None


def is_hopeless(wanted: int, budget: int, loaded: Iterable[Occupant]) -> bool:
    """Whether it would not fit even beside the pinned ones alone."""
    return wanted > budget - sum(each.bytes for each in loaded if each.is_pinned)


class Sharing:
    """The models of one recipe that share `budget` bytes. `sizes` are by name; what is not known is measured once the
    model is loaded, and until then counts as nothing."""

    def __init__(self, budget: int, sizes: Mapping[str, int], models: Sequence[Resident]) -> None:
        self._budget = budget
        self._sizes = dict(sizes)
        self._known = frozenset(sizes)
        self._models = {model.name: model for model in models}
        self._turn = asyncio.Lock()
        for model in models:
            model.share(self)

    async def begin(self) -> None:
        """Load each model once, so that what it is gets known: pinned ones first, else in the recipe's order. One whose
        weights are in cold storage waits until it is asked."""
        for model in sorted(self._models.values(), key=lambda model: not model.spec.pin):
            if model.is_cold:
                continue
            try:
                await model.ready()
            except ServiceError as error:
                log.error("models.%s: %s", model.name, error.message)

    @asynccontextmanager
    async def room(self, model: Resident) -> AsyncGenerator[None, None]:
        """Make room for `model`, which takes it before the block ends.

        Waits for others to become idle. Raises ModelUnavailable where that cannot help, or takes minutes.
        """
        wanted = self._sizes.get(model.name, 0)
        async with self._turn:
            until = asyncio.get_running_loop().time() + _PATIENCE_S
            while True:
                loaded = [self._occupant(each) for each in self._models.values() if each.is_loaded and each != model]
                if is_hopeless(wanted, self._budget, loaded):
                    raise self._refused(model, wanted, "beside those that are pinned", 60)
                leaving = making_room(wanted, self._budget, loaded)
                if leaving is not None:
                    # One that is asked at this very moment stays, and all is looked at again.
                    if all([await self._models[name].make_room() for name in leaving]):
                        break
                elif asyncio.get_running_loop().time() > until:
                    raise self._refused(model, wanted, "while others are in use", 5)
                await asyncio.sleep(_LOOK_S)
            yield

    def _occupant(self, model: Resident) -> Occupant:
        if model.name not in self._known and model.pid is not None:
            self._sizes[model.name] = _resident(model.pid)
        size = self._sizes.get(model.name, 0)
        return Occupant(model.name, size, model.is_idle, model.spec.pin, model.used)

    def _refused(self, model: Resident, wanted: int, why: str, retry_after: int) -> ModelUnavailable:
        return ModelUnavailable(
            f"Model {model.name} needs {wanted / 1e9:.1f} GB, for which there is no room {why}: "
            f"policies.tiering.models.memory is {self._budget / 1e9:.1f} GB.",
            retry_after=retry_after,
        )


def _resident(pid: int) -> int:
    """What a process holds in memory, in bytes; 0 where it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


async def sharing_of(recipe: Recipe, models: Sequence[Resident]) -> Sharing | None:
    """None where the recipe does not say how much memory models share."""
    tiering = recipe.policies.tiering
    if tiering is None or tiering.models is None or tiering.models.memory is None:
        return None
    found = await asyncio.to_thread(plans, recipe)
    sizes = {plan.name: plan.memory.total for plan in found if plan.memory is not None}
    return Sharing(tiering.models.memory, sizes, models)
