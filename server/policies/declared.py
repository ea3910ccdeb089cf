"""The policies that a recipe declares, made from its sections."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from config import Recipe
from server.knowledge import Tier
from server.models.resident import Resident
from server.policies.backup.policy import BackupPolicy
from server.policies.keeper import Keeper
from server.policies.report import Policy
from server.policies.tiering.models import ModelTier
from server.policies.tiering.policy import TieringPolicy
from server.policies.tiering.uses import Uses
from server.state import State


def policies_of(
    recipe: Recipe, state: State, tiers: Mapping[str, Tier], models: Mapping[str, object] | None = None
) -> list[Policy]:
    """`tiers` are those of the collections, which a server's searches use too; `models` are a running server's."""
    found: list[Policy] = []
    tiering = recipe.policies.tiering
    weights = _weights(recipe, state, models or {})
    if tiering is not None and (tiering.cold is not None or weights is not None):
        found.append(TieringPolicy(tiering, recipe.server.data, state, tiers, weights))
    if recipe.policies.backup is not None:
        found.append(BackupPolicy(recipe, recipe.policies.backup))
    return found


def _weights(recipe: Recipe, state: State, models: Mapping[str, object]) -> ModelTier | None:
    tiering = recipe.policies.tiering
    if tiering is None or tiering.models is None or tiering.models.cold is None:
        return None
    running = {name: model for name, model in models.items() if isinstance(model, Resident)}
    return ModelTier(recipe, tiering.models, Uses(state, running.values()), running)


@asynccontextmanager
async def kept(
    recipe: Recipe, state: State, tiers: Mapping[str, Tier], models: Mapping[str, object], seed: str
) -> AsyncIterator[Keeper]:
    """Run them at their times until the block ends. What they need is looked at at once, beside everything else."""
    policies = policies_of(recipe, state, tiers, models)
    looks = [asyncio.create_task(each.prepare()) for each in policies if isinstance(each, TieringPolicy)]
    try:
        async with AsyncExitStack() as stack:
            for each in policies:
                if isinstance(each, TieringPolicy) and each.models is not None:
                    await stack.enter_async_context(each.models.uses.noted())
            yield await stack.enter_async_context(Keeper.keeping(policies, state, seed))
    finally:
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
