"""The process that makes a snapshot."""

from config import Recipe
from server.policies.backup.job import Backup
from server.policies.process import serve
from server.policies.report import Report, Tell


def _make(recipe: Recipe, tell: Tell) -> Report:
    return Backup.declared(recipe, tell).make(recipe)


if __name__ == "__main__":
    serve(_make)
