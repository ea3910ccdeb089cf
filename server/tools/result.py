"""What a call of a tool brought, as it also crosses from a tool's process to the gateway. Imports nothing of ours."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """What a call brought. With `error` the text says what went wrong, for the model to read."""

    text: str
    error: bool = False
    structured: Any = None
    """The same as JSON values, where the tool gave such."""


def cut(outcome: Result, longest: int) -> Result:
    """`outcome` with at most `longest` bytes of text; what is cut is said at its end, and structured goes with it."""
    raw = outcome.text.encode("utf-8", "replace")
    if len(raw) <= longest:
        return outcome
    kept = raw[:longest].decode("utf-8", "ignore")
    mark = f"\n[cut: these are the first {longest} of {len(raw)} bytes]"
    return Result(kept + mark, outcome.error)
