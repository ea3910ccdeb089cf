"""The `hearth` command; each subcommand is a few lines over the rooms that do the work."""

import os
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
    """Check RECIPE: every fault at once, each model's engine and memory; exit code 1 when something cannot be."""
    from server.checking import check as inspect

    sys.exit(inspect(_loaded(recipe), _out, _err))


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


@main.command()
@click.argument("collection")
@click.argument("query")
@_recipe_option
@click.option("-k", type=click.IntRange(1, 100), help="How many chunks; the collection's search.k unless said.")
@click.option("--mode", type=click.Choice(["hybrid", "vector", "text"]), help="How to search; as the recipe says.")
@click.option("--json", "as_json", is_flag=True, help="Print what /v1/retrieve answers, explained.")
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the server asks for one.")
def search(
    collection: str, query: str, recipe: Path, k: int | None, mode: str | None, as_json: bool, key: str | None
) -> None:
    """Search COLLECTION for QUERY: in the running server, else in RECIPE loaded for this one search."""
    from server.searching import search as put

    sys.exit(put(_loaded(recipe), collection, query, k, mode, key, _out, _err, as_json=as_json))


@main.command()
@click.argument("what", nargs=-1, metavar="[RECIPE] [hf:OWNER/NAME...]")
@click.option("--model", "-m", help="Only the weights of this model of the recipe.")
@click.option("--verify", is_flag=True, help="Fetch nothing; read what is on disk and take every sum again.")
@click.option("--update", is_flag=True, help="Ask the hub whether a branch or tag has moved since it was fetched.")
def pull(what: tuple[str, ...], model: str | None, verify: bool, update: bool) -> None:
    """Fetch the weights RECIPE has on the Hugging Face hub, or the sources given; asks nothing."""
    from server.models.hub import Access
    from server.pulling import pull as put

    sources = [each for each in what if each.startswith("hf:")]
    recipes = [each for each in what if not each.startswith("hf:")]
    if len(recipes) > 1:
        raise click.UsageError(f"one recipe, not {len(recipes)}: {', '.join(recipes)}")
    recipe = _loaded(Path(recipes[0]) if recipes else Path("recipes/starter.yaml"))
    sys.exit(put(recipe, sources, model, _out, _err, Access.of(os.environ), verify=verify, update=update))


@main.command()
@_recipe
def models(recipe: Path) -> None:
    """List the models of RECIPE: what is on disk, and what the running server has loaded."""
    from server.pulling import show as put

    put(_loaded(recipe), _out)


@main.group(invoke_without_command=True)
@_recipe_option
@click.pass_context
def engines(context: click.Context, recipe: Path) -> None:
    """List the engines of this machine and their state."""
    context.obj = _loaded(recipe).server.data
    if context.invoked_subcommand is None:
        from server.building import show as put

        sys.exit(put(context.obj, _out))


@engines.command()
@click.argument("engine", type=click.Choice(["llamacpp"]))
@click.option("--without-grammars", is_flag=True, help="Build without what needs git, cargo and a way to GitHub.")
@click.option(
    "--limit",
    type=click.FloatRange(min=0.01),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="Give up after this long.",
)
@click.pass_obj
def build(data: Path, engine: str, without_grammars: bool, limit: float) -> None:
    """Compile ENGINE for this machine's processor; takes minutes."""
    from server.building import build as put

    sys.exit(put(data, not without_grammars, 60.0 * limit, _out, _err))


@main.group()
@_recipe_option
@click.pass_context
def keys(context: click.Context, recipe: Path) -> None:
    """Make, list and remove API keys; a running server follows within a second."""
    context.obj = _loaded(recipe)


@keys.command("add")
@click.argument("name")
@click.option("--scopes", default="infer,retrieve", show_default=True, help="Of infer, retrieve, ingest, admin.")
@click.option("--expires", metavar="TIME", help="When it stops working, such as 2027-01-31T00:00:00Z.")
@click.option("--requests-per-minute", type=click.IntRange(min=1))
@click.option("--tokens-per-minute", type=click.IntRange(min=1))
@click.pass_obj
def add_key(recipe: Recipe, /, name: str, scopes: str, expires: str | None, **limits: int | None) -> None:
    """Make a key for NAME and print it, this once."""
    from server.keys import add as put

    asked = [scope.strip() for scope in scopes.split(",")]
    sys.exit(put(recipe, name, asked, expires, limits, _out, _err))


@keys.command("list")
@click.pass_obj
def list_keys(recipe: Recipe) -> None:
    """List the keys in force, without their secrets."""
    from server.keys import show as put

    sys.exit(put(recipe, _out, _err))


@keys.command("remove")
@click.argument("name")
@click.pass_obj
def remove_key(recipe: Recipe, name: str) -> None:
    """Take the key of NAME out of the keys file; it stops working at once."""
    from server.keys import remove as put

    sys.exit(put(recipe, name, _err))


def _loaded(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    try:
        return load(path, overrides=overrides or {})
    except RecipeError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
