"""The table of clients in the handbook: written from a run, read by a test."""

import re
from pathlib import Path

from tests.clients.client import HERE, Client
from tests.clients.outcome import Outcome, counted

PAGE = HERE.parents[1] / "recipes" / "handbook" / "clients.md"
_HEAD = "| Client | Package | Version | Cases | Result |\n|---|---|---|---|---|\n"
_ROWS = re.compile(r"^\|.*\n(?:\|.*\n)+", re.MULTILINE)


def written(results: dict[Client, list[Outcome]], page: Path = PAGE) -> None:
    """Put what came of a run in place of the page's table."""
    rows = "".join(_row(client, *counted(found)) for client, found in results.items())
    text, count = _ROWS.subn(lambda _: _HEAD + rows, page.read_text(encoding="utf-8"))
    assert count == 1, f"{page} has {count} tables, not one"
    page.write_text(text, encoding="utf-8")


def _row(client: Client, passed: int, failed: int) -> str:
    result = f"{failed} failed" if failed else "all passed"
    return f"| {client.title} | `{client.package}` | {client.version} | {passed + failed} | {result} |\n"


def named(page: Path = PAGE) -> list[tuple[str, str, str]]:
    """Title, package and version of each row."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0], row[1].strip("`"), row[2]) for row in cells]
