"""The card of a quantised model, README.md beside the weights: what it was made from, how, when, and what it cost.

The same facts stand in quantized.json, by which a later run knows what is there already.
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from rich.filesize import decimal

CARD, RECORD = "README.md", "quantized.json"
_PACKAGES = ("hearth", "gguf", "xllamacpp", "torch", "transformers", "exllamav2", "exllamav3")


@dataclass(frozen=True)
class Evaluated:
    """`before` and `after` are perplexities of a text, or None for questions; accuracies are 0 to 1.

    Accuracy is the share of tokens that were the likeliest ones, or of right answers; `agreement` that of places where
    both models find the same likeliest.
    """

    data: str
    places: int
    accuracy_before: float
    accuracy_after: float
    agreement: float
    before: float | None = None
    after: float | None = None
    how: str = ""

    @property
    def lost(self) -> float:
        """Accuracy lost, in hundredths of what it was; negative where it rose."""
        return 100 * (1 - self.accuracy_after / self.accuracy_before) if self.accuracy_before else 0.0


@dataclass(frozen=True)
class Card:
    """`source` is what the user named; `files` what of it was read. Bytes count the weights alone."""

    name: str
    source: str
    format: str
    how: str
    weights: int
    half_bytes: int
    bytes: int
    original_bytes: int
    when: str
    plan: str
    sums: Mapping[str, str]
    types: Mapping[str, int] = field(default_factory=dict)
    unfit: str = ""
    """What could not have the type that was asked for, and why."""
    evaluated: tuple[Evaluated, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def bits(self) -> float:
        """What a weight takes in the end, scales and everything else included."""
        return 8 * self.bytes / self.weights

    @property
    def saved(self) -> float:
        """Hundredths smaller than 16-bit floats."""
        return 100 * (1 - self.bytes / self.half_bytes)

    def rows(self) -> list[tuple[str, str]]:
        """What the table shows, on the screen and in the card."""
        rows = [
            ("size as fp16", decimal(self.half_bytes)),
            ("size now", decimal(self.bytes)),
            ("smaller by", f"{self.saved:.1f} %"),
            ("bits a weight", f"{self.bits:.2f}, scales included"),
        ]
        if self.types:
            shares = [f"{name} {100 * count / self.weights:.1f} %" for name, count in self.types.items()]
            rows.append(("types of weights", "; ".join([", ".join(shares), *filter(None, [self.unfit])])))
        for each in self.evaluated:
            what = f"{each.data}, {each.places} {'answers' if each.before is None else 'tokens'}"
            if each.before is not None and each.after is not None:
                rows.append(("perplexity before", f"{each.before:.3f} ({what})"))
                change = 100 * (each.after / each.before - 1)
                rows.append(("perplexity now", f"{each.after:.3f} ({change:+.1f} %)"))
            rows.append(("accuracy before", f"{100 * each.accuracy_before:.2f} % ({what})"))
            rows.append(("accuracy now", f"{100 * each.accuracy_after:.2f} % ({each.lost:.1f} % of it lost)"))
            rows.append(("same choice", f"{100 * each.agreement:.2f} % of places"))
        return rows


def versions() -> dict[str, str]:
    """Of what may have had a part in it, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(card: Card, folder: Path) -> None:
    """README.md and quantized.json, each whole or not at all."""
    _put(folder / RECORD, json.dumps(asdict(card), indent=2, ensure_ascii=False) + "\n")
    _put(folder / CARD, _text(card))


def read(folder: Path) -> Card | None:
    """What stands in quantized.json; None where there is none that can be read."""
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        told["evaluated"] = tuple(Evaluated(**each) for each in told["evaluated"])
        return Card(**told)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _put(file: Path, text: str) -> None:
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def _text(card: Card) -> str:
    lines = [f"# {card.name}", "", f"{card.source}, quantised to {card.format}: {card.how}.", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in card.rows()), ""]
    lines += [f"Perplexity and accuracy: {each.how}" for each in card.evaluated if each.how]
    lines += ["", f"Made {card.when} with {', '.join(f'{name} {each}' for name, each in card.versions.items())}.", ""]
    lines += ["| file | SHA-256 |", "|---|---|", *(f"| {name} | `{each}` |" for name, each in card.sums.items())]
    return "\n".join(lines) + "\n"
