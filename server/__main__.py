"""The `hearth` command; each subcommand is a few lines over the rooms that do the work."""

import sys
from pathlib import Path

import click
from rich.console import Console

from config import Recipe, RecipeError, load

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

_recipe = click.argument("recipe", type=click.Path(path_type=Path), default=Path("recipes/starter.yaml"))
_recipe_option = click.option(
    "--recipe", "-r", type=click.Path(path_type=Path), default=Path("recipes/starter.yaml"), show_default=True
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hearth")
def main() -> None:
    """Hearth: a local AI server from one YAML recipe."""


@main.command()
@_recipe
@click.option("--listen", help="HOST:PORT instead of the recipe's.")
@click.option("--verbose", "-v", is_flag=True, help="Log every request and every line of the workers.")
def serve(recipe: Path, listen: str | None, verbose: bool) -> None:
    """Serve RECIPE until Ctrl-C."""
    from server.serving import run

    overrides = {} if listen is None else {"server.listen": listen}
    sys.exit(run(_loaded(recipe, overrides), verbose=verbose))


@main.command()
@_recipe
def check(recipe: Path) -> None:
    """Check RECIPE: every fault at once; exit code 1 when there is one."""
    found = _loaded(recipe)
    _out.print(
        f"{recipe}: ok ({len(found.models)} models, {len(found.knowledge)} collections, "
        f"{len(found.assistants)} assistants)"
    )


@main.command()
@_recipe
def show(recipe: Path) -> None:
    """Print RECIPE as it is understood: defaults filled in, environment applied, secrets as ***."""
    import yaml

    click.echo(yaml.safe_dump(_loaded(recipe).redacted(), sort_keys=False, allow_unicode=True), nl=False)


@main.command()
@click.argument("question")
@_recipe_option
@click.option("--model", "-m", help="A model id; the recipe's first assistant or chat model unless said.")
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the server asks for one.")
def ask(question: str, recipe: Path, model: str | None, key: str | None) -> None:
    """Ask QUESTION and stream the answer: from the running server, else from RECIPE loaded for this one answer."""
    from server.asking import ask as put

    sys.exit(put(_loaded(recipe), question, model, key, _out, _err))


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@_recipe_option
@click.option("--collection", "-c", help="Which collection takes the documents; needed when there are several.")
def ingest(path: Path, recipe: Path, collection: str | None) -> None:
    """Add the documents under PATH to a collection; a running server finds them at once."""
    from server.ingesting import ingest as put

    sys.exit(put(_loaded(recipe), path.resolve(), collection, _out, _err))


def _loaded(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    try:
        return load(path, overrides=overrides or {})
    except RecipeError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
