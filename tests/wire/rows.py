"""The table of wire behaviours: one row each, with the test that watches it. `tests/wire/rows/*.yaml` hold them."""

from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent / "rows"


@dataclass(frozen=True)
class Row:
    """`says` is one sentence; `source` is where the need for it comes from: a client, a specification, an issue.

    `test` names a file beside this one and a function of it, as pytest does: test_chat.py::test_role_comes_first.
    """

    id: str
    says: str
    source: str
    test: str


def rows() -> list[Row]:
    """Every row. Raises TypeError where one lacks a part or has another."""
    return [
        Row(**each)
        for file in sorted(FOLDER.glob("*.yaml"))
        for each in yaml.safe_load(file.read_text(encoding="utf-8"))
    ]
