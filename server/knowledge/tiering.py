"""The tiers that a recipe declares for its collections, and the cache of answers before them."""

import logging

from config import Recipe
from server.knowledge.catalogue import Catalogue
from server.knowledge.query_cache import QueryCache
from server.knowledge.tier import Tier
from server.state import State

log = logging.getLogger(__name__)


def tiers_of(recipe: Recipe, state: State) -> dict[str, Tier]:
    """What knows the cold documents of each collection; empty where the recipe declares no cold storage."""
    tiering = recipe.policies.tiering
    if tiering is None or tiering.cold is None:
        return {}
    return {
        name: Tier(tiering.cold, Catalogue(state, name), weak=tiering.weak, language=spec.language)
        for name, spec in recipe.knowledge.items()
    }


def query_cache_of(recipe: Recipe) -> QueryCache | None:
    """None where the recipe declares no tiering."""
    tiering = recipe.policies.tiering
    if tiering is None:
        return None
    hot = tiering.hot
    password = None if hot.password is None else hot.password.get_secret_value()
    return QueryCache(hot.memory, hot.redis, username=hot.username, password=password)


async def tell_of_lost(recipe: Recipe, state: State) -> None:
    """Log which documents are nowhere to be found, because the recipe does not say any more where they went."""
    tiering = recipe.policies.tiering
    if tiering is not None and tiering.cold is not None:
        return
    for name in recipe.knowledge:
        if cold := await Catalogue(state, name).entries("cold"):
            log.error(
                "collection %s: %d documents are in cold storage and cannot be searched: declare policies.tiering.cold "
                "as it was",
                name,
                len(cold),
            )
