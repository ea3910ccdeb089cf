"""The policies that a recipe declares, made from its sections."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from config import Recipe
from server.knowledge import Tier
from server.policies.backup.policy import BackupPolicy
from server.policies.keeper import Keeper
from server.policies.report import Policy
from server.policies.tiering.policy import TieringPolicy
from server.state import State


def policies_of(recipe: Recipe, state: State, tiers: Mapping[str, Tier]) -> list[Policy]:
    """`tiers` are those of the collections, which a server's searches use too."""
    found: list[Policy] = []
    tiering = recipe.policies.tiering
    if tiering is not None and tiering.cold is not None:
        found.append(TieringPolicy(tiering, recipe.server.data, state, tiers))
    if recipe.policies.backup is not None:
        found.append(BackupPolicy(recipe, recipe.policies.backup))
    return found


@asynccontextmanager
async def kept(recipe: Recipe, state: State, tiers: Mapping[str, Tier], seed: str) -> AsyncIterator[Keeper]:
    """Run them at their times until the block ends. What they need is looked at at once, beside everything else."""
    policies = policies_of(recipe, state, tiers)
    looks = [asyncio.create_task(each.prepare()) for each in policies if isinstance(each, TieringPolicy)]
    try:
        async with Keeper.keeping(policies, state, seed) as keeper:
            yield keeper
    finally:
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
