"""`python -m tests.clients [NAME ...]`: every client's cases against one server with the conformance recipe."""

import shutil
import sys
from pathlib import Path

import click

from tests.clients.client import CLIENTS, HERE, Client
from tests.clients.environment import ROOT, CannotInstall, prepared
from tests.clients.outcome import Outcome, counted, everything, outcomes
from tests.clients.table import written
from tests.live import serving

_RECIPE = HERE.parents[1] / "recipes" / "conformance.yaml"
_KEY = "sk-local-test"
_DATA = ROOT / "data"
_TAIL = 1500
_LATE = """\
  # Fails in the middle of a stream, for the cases of clients that have to notice.
  late: {engine: echo, tokens_per_second: 2, deadline: 1200ms}
"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, metavar="[NAME ...]", type=click.Choice([client.name for client in CLIENTS]))
@click.option(
    "--table", is_flag=True, help="Rewrite the handbook's table with what came of it; all clients have to run."
)
def main(names: tuple[str, ...], table: bool) -> None:
    """Run the real clients against Hearth, each in its own environment under .clients.

    Ends with 1 where a case fails. What cannot be installed here is skipped, and said.
    """
    wanted = [client for client in CLIENTS if client.name in (names or [each.name for each in CLIENTS])]
    commands, skipped = _environments(wanted)
    results: dict[Client, list[Outcome]] = {}
    if commands:
        shutil.rmtree(_DATA, ignore_errors=True)  # what an earlier run left is not this one's to find
        with serving(_recipe(), _DATA) as live:
            for client, command in commands.items():
                results[client] = outcomes(client, command, live.url, _KEY)
                _tell(client, results[client])
    if table and len(results) == len(CLIENTS):
        written(results)
    elif table:
        click.echo("The table was left as it is: not every client has run.", err=True)
    sys.exit(_summary(everything(results), skipped))


def _environments(wanted: list[Client]) -> tuple[dict[Client, list[str]], list[Client]]:
    """The command of each client that can run here, and those that cannot."""
    commands, skipped = {}, []
    for client in wanted:
        try:
            commands[client] = prepared(client)
        except CannotInstall as error:
            click.echo(f"SKIPPED {client.name}: {error}", err=True)
            skipped.append(client)
    return commands, skipped


def _recipe() -> Path:
    """The conformance recipe, and one model besides."""
    recipe = ROOT / "recipe.yaml"
    text = _RECIPE.read_text(encoding="utf-8").replace("./examples", str(_RECIPE.parent / "examples"))
    recipe.write_text(text + _LATE, encoding="utf-8")
    return recipe


def _tell(client: Client, found: list[Outcome]) -> None:
    passed, failed = counted(found)
    click.echo(f"{client.name:20}{client.version:>12}{passed:6} passed{failed:5} failed")
    for each in found:
        if not each.ok:
            click.echo(
                f"  FAILED {client.name}: {each.case}\n    " + each.detail.strip()[-_TAIL:].replace("\n", "\n    ")
            )


def _summary(found: list[Outcome], skipped: list[Client]) -> int:
    passed, failed = counted(found)
    if skipped:
        click.echo(f"SKIPPED, because they could not be installed: {', '.join(each.name for each in skipped)}")
    click.echo(f"{passed} passed, {failed} failed" + (f", {len(skipped)} skipped" if skipped else ""))
    return 1 if failed else 0


main()
