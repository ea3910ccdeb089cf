"""Models built offline for tests and benches: an automaton whose words are known, random ones, and a trained one."""

from server.models.made.automaton import TEXT
from tests.making.build import made

__all__ = ["TEXT", "made"]
