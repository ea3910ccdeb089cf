"""Why a model cannot be quantised, and what is told on the way."""

from collections.abc import Callable

Told = Callable[[str, int, int], None]
"""What is being worked on, how much of it is done, and how much there is; in bytes, layers or tokens, as the step has
it."""


class QuantizeError(ValueError):
    """One sentence for the person who asked."""
