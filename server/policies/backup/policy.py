"""The policy `backup`: each run is a process of its own, which computes and blocks beside the server."""

from config import Recipe
from config.policy import BackupSpec
from server.policies.process import run_apart
from server.policies.report import Report, Tell


class BackupPolicy:
    """Copies models, knowledge and recipe to the place that the recipe says."""

    name = "backup"

    def __init__(self, recipe: Recipe, spec: BackupSpec) -> None:
        self.spec = spec
        self._recipe = recipe

    async def run(self, tell: Tell) -> Report:
        """Raises what the process tells; cancelling it ends the process."""
        return await run_apart("server.policies.backup", self._recipe, tell)
