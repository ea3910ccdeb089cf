"""What every bench prints: figures with their bars, and whether they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

_TITLES = ("figure", "value", "bar", "peer", "verdict")


class CannotRun(Exception):
    """The bench lacks something; the text says what."""


@dataclass(frozen=True)
class Figure:
    """One measured value. Without a `bar` it is only told; `peer` is what it was measured beside."""

    name: str
    value: float
    unit: str
    bar: float | None = None
    side: Literal["at most", "at least"] = "at most"
    peer: str = ""
    digits: int = 1

    @property
    def holds(self) -> bool:
        if self.bar is None:
            return True
        return self.value <= self.bar if self.side == "at most" else self.value >= self.bar

    def row(self) -> tuple[str, ...]:
        bar = "" if self.bar is None else f"{self.side} {self.bar:g} {self.unit}".rstrip()
        verdict = "" if self.bar is None else "holds" if self.holds else "FALLS SHORT"
        return self.name, f"{self.value:.{self.digits}f} {self.unit}".rstrip(), bar, self.peer, verdict


def report(figures: Sequence[Figure]) -> int:
    """Print the table; returns the exit code, 1 where a bar falls short."""
    rows = [_TITLES, *(figure.row() for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_TITLES))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0 if all(figure.holds for figure in figures) else 1
