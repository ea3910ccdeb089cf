"""The policies that a recipe declares, made from its sections."""

from config import Recipe
from server.policies.backup.policy import BackupPolicy
from server.policies.report import Policy


def policies_of(recipe: Recipe) -> list[Policy]:
    found: list[Policy] = []
    if recipe.policies.backup is not None:
        found.append(BackupPolicy(recipe, recipe.policies.backup))
    return found
