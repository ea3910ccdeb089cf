"""gpu-check.json and the table of it: each figure with its bar, and what could not be measured with the reason."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

FILE = "gpu-check.json"
PASSED, FAILED, TOLD, MISSED = "passed", "failed", "told", "not measured"


@dataclass(frozen=True)
class Figure:
    """One line: `least` or `most` is the bar, where there is one; `missed` says why there is no value."""

    step: int
    name: str
    value: float | None = None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    missed: str | None = None

    @property
    def state(self) -> str:
        if self.value is None:
            return MISSED
        if self.least is None and self.most is None:
            return TOLD
        under = self.most is not None and self.value > self.most
        return FAILED if under or (self.least is not None and self.value < self.least) else PASSED

    @property
    def bar(self) -> str:
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"


@dataclass
class Report:
    """What the steps found so far, kept in `folder` after each figure, so that a step that is cut loses nothing."""

    folder: Path
    machine: dict[str, Any]
    figures: list[Figure]
    told: dict[str, str] = field(default_factory=dict)
    """What is no figure, by what it is of: the kernels that a call is made of."""
    heard: Callable[[Figure], None] = lambda _: None
    """Called with each figure that is added."""

    @classmethod
    def read(cls, folder: Path, heard: Callable[[Figure], None] = lambda _: None) -> "Report":
        """What earlier steps left; an empty one where there is none."""
        try:
            told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(folder, {}, [], heard=heard)
        figures = [Figure(**{key: each[key] for key in Figure.__dataclass_fields__}) for each in told["figures"]]
        return cls(folder, told["machine"], figures, told.get("told", {}), heard)

    def begin(self, step: int) -> None:
        """Forget what an earlier run of this step found."""
        self.figures = [figure for figure in self.figures if figure.step != step]
        if step == 2:
            self.told = {}
        self.save()

    def add(self, *figures: Figure) -> None:
        self.figures += figures
        self.save()
        for each in figures:
            self.heard(each)

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        figures = [{**asdict(each), "state": each.state} for each in self.figures]
        told = {"machine": self.machine, "figures": figures, "told": self.told}
        fresh = self.folder / f".{FILE}.new"
        fresh.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        fresh.replace(self.folder / FILE)

    def done(self, step: int) -> bool:
        return any(figure.step == step for figure in self.figures)

    def failed(self) -> list[Figure]:
        """The figures that missed their bar, and those with a bar that could not be measured."""
        return [each for each in self.figures if each.state == FAILED or (each.state == MISSED and each.bar)]

    def show(self, out: Console) -> None:
        table = Table("step", "what", "value", "bar", "state", box=None, pad_edge=False)
        for each in sorted(self.figures, key=lambda figure: figure.step):
            value = "-" if each.value is None else f"{each.value:.4g} {each.unit}".rstrip()
            table.add_row(str(each.step), each.name, value, each.bar, each.missed or each.state)
        if not out.is_terminal:
            out.width = 160
        out.print(", ".join(f"{name}: {value}" for name, value in self.machine.items()), markup=False)
        out.print(table)
        for name, each in self.told.items():
            out.print(f"{name}: {each}", markup=False)
