"""What goes before a text that is embedded: by the recipe, else by the model's own folder. Loads no weights.

config_sentence_transformers.json names prompts; `query` and `document` (or `passage`) are those that searching needs.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.model import LocalModel
from config.prompts import Prompts as Section
from server.models.header import WeightsError, read_json

Side = Literal["query", "document"]
"""What a text is to a search."""

FILE = "config_sentence_transformers.json"
_DOCUMENT = ("document", "passage")


@dataclass(frozen=True)
class Prompts:
    """`plain` goes before a text of which nobody says what it is: what the model's authors chose, mostly nothing."""

    query: str = ""
    document: str = ""
    plain: str = ""

    @classmethod
    def of(cls, spec: LocalModel, files: Path) -> "Prompts":
        """Raises WeightsError naming the file where it does not hold prompts as it should."""
        named, usual = _named(files / FILE)
        if spec.prompts is not None:
            return cls.given(spec.prompts)
        document = next((named[name] for name in _DOCUMENT if name in named), "")
        return cls(named.get("query", ""), document, named.get(usual, "") if usual else "")

    @classmethod
    def given(cls, prompts: Section | None) -> "Prompts":
        """Those of the recipe, and nothing where it says nothing."""
        return cls() if prompts is None else cls(prompts.query, prompts.document)

    @property
    def by_side(self) -> dict[str, str]:
        """Those that are something."""
        return {side: text for side, text in (("query", self.query), ("document", self.document)) if text}

    def before(self, side: Side | None) -> str:
        match side:
            case "query":
                return self.query
            case "document":
                return self.document
            case _:
                return self.plain


def _named(file: Path) -> tuple[dict[str, str], str | None]:
    """The prompts by their names, and the name of the one that is used unless said."""
    if not file.exists():
        return {}, None
    told = read_json(file)
    named, usual = told.get("prompts") or {}, told.get("default_prompt_name")
    if not isinstance(named, dict) or not all(isinstance(text, str) for text in named.values()):
        raise WeightsError(f"{file}: prompts should be texts by their names, but is {named!r:.100}")
    if usual is not None and usual not in named:
        raise WeightsError(f"{file}: default_prompt_name is {usual!r}, and there is no prompt of that name")
    return named, usual
