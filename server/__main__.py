"""The `hearth` command; each subcommand is a few lines over the rooms that do the work."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from config import Recipe, RecipeError, load
from config.server import ServerSpec
from server import recipe_option

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)


@click.group(cls=recipe_option.Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hearth")
def main() -> None:
    """Hearth: a local AI server from one YAML recipe."""


@main.command()
@recipe_option.argument
@click.option("--listen", help="HOST:PORT instead of the recipe's.")
@click.option("--verbose", "-v", is_flag=True, help="Log every request and every line of the workers.")
def serve(recipe: Path, listen: str | None, verbose: bool) -> None:
    """Serve RECIPE until Ctrl-C."""
    from server.serving import run

    overrides = {} if listen is None else {"server.listen": listen}
    sys.exit(run(_loaded(recipe, overrides), verbose=verbose))


@main.command()
@recipe_option.argument
def check(recipe: Path) -> None:
    """Check RECIPE: every fault at once, each model's engine and memory; exit code 1 when something cannot be."""
    from server.checking import check as inspect

    sys.exit(inspect(_loaded(recipe), _out, _err))


@main.command()
@recipe_option.argument
def show(recipe: Path) -> None:
    """Print RECIPE as it is understood: defaults filled in, environment applied, secrets as ***."""
    import yaml

    click.echo(yaml.safe_dump(_loaded(recipe).redacted(), sort_keys=False, allow_unicode=True), nl=False)


@main.command()
@click.argument("question")
@recipe_option.option
@click.option("--model", "-m", help="A model id; the recipe's first assistant or chat model unless said.")
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the server asks for one.")
def ask(question: str, recipe: Path, model: str | None, key: str | None) -> None:
    """Ask QUESTION and stream the answer: from the running server, else from RECIPE loaded for this one answer."""
    from server.asking import ask as put

    sys.exit(put(_loaded(recipe), question, model, key, _out, _err))


@main.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@recipe_option.option
@click.option("--collection", "-c", help="Which collection takes the documents; needed when there are several.")
@click.option("--lines", is_flag=True, help="PATH is JSON Lines, and each line is a document with an id of its own.")
def ingest(path: Path, recipe: Path, collection: str | None, lines: bool) -> None:
    """Add the documents under PATH to a collection; a running server finds them at once."""
    from server.ingesting import ingest as put

    sys.exit(put(_loaded(recipe), path.resolve(), collection, _out, _err, lines=lines))


@main.command()
@click.argument("collection", required=False)
@recipe_option.option
@click.option("--refused", "what", flag_value="refused", help="List the files that were not taken in, and why.")
@click.option("--dead", "what", flag_value="dead_letters", help="List the messages that were refused, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print what /v1/knowledge answers.")
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the server asks for one.")
def knowledge(collection: str | None, recipe: Path, what: str | None, as_json: bool, key: str | None) -> None:
    """Tell what COLLECTION, or each, holds and how it is kept: from the running server, else from the data folder."""
    from server.knowing import knowledge as put

    sys.exit(put(_loaded(recipe), collection, what or "collections", key, _out, _err, as_json=as_json))


@main.command()
@click.argument("collection")
@click.argument("query")
@recipe_option.option
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


@main.command("mcp")
@recipe_option.option
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the server asks for one.")
def offer(recipe: Path, key: str | None) -> None:
    """Speak MCP on standard input and output: search, add documents and call the tools of RECIPE."""
    from server.offering import offer as put

    sys.exit(put(_loaded(recipe), key))


@main.command()
@click.argument("what", nargs=-1, metavar="[RECIPE] [hf:OWNER/NAME...]")
@click.option("--model", "-m", help="Only the weights of this model of the recipe.")
@click.option("--verify", is_flag=True, help="Fetch nothing; read what is on disk and take every sum again.")
@click.option("--update", is_flag=True, help="Ask the hub whether a branch or tag has moved since it was fetched.")
@recipe_option.aside
@click.pass_context
def pull(context: click.Context, /, what: tuple[str, ...], model: str | None, verify: bool, update: bool) -> None:
    """Fetch the weights RECIPE has on the Hugging Face hub, or the sources given; asks nothing."""
    from server.models.hub import Access
    from server.pulling import pull as put

    sources = [each for each in what if each.startswith("hf:")]
    recipes = [each for each in what if not each.startswith("hf:")]
    if len(recipes) > 1:
        raise click.UsageError(f"one recipe, not {len(recipes)}: {', '.join(recipes)}")
    recipe = _loaded(recipe_option.given(context, Path(recipes[0]) if recipes else None))
    sys.exit(put(recipe, sources, model, _out, _err, Access.of(os.environ), verify=verify, update=update))


@main.command()
@recipe_option.argument
def models(recipe: Path) -> None:
    """List the models of RECIPE: what is on disk, and what the running server has loaded."""
    from server.pulling import show as put

    put(_loaded(recipe), _out)


@main.command()
@click.argument("model")
@recipe_option.option
@click.option("--to", type=click.Choice(["gguf", "gptq", "exl2", "exl3"]), default="gguf", show_default=True)
@click.option("--bits", type=click.FloatRange(min=1, max=8.5), default=4.0, show_default=True, help="Bits a weight.")
@click.option("--type", "kind", help="A type of GGUF by its name, such as q4_k, instead of --bits.")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to write; one beside the model unless said.")
@click.option("--eval", "evaluate", is_flag=True, help="Measure what was lost, and write it on the model's card.")
@click.option("--data", type=click.Path(path_type=Path), help="A text, or .jsonl with prompt and answer, for --eval.")
@click.option("--calibration", type=click.Path(path_type=Path), help="A text the rounding is fitted to: gguf, gptq.")
@click.option("--plain", is_flag=True, help="Round each weight for itself: gguf. Quicker, and loses more.")
@click.option(
    "--act-order/--no-act-order", default=True, show_default=True, help="Round what matters most first: gptq."
)
@click.option("--group", type=click.Choice((128, 64, 32)), help="Inputs that share a scale: gptq. Fewer lose less.")
def quantize(model: str, recipe: Path, **asked: Any) -> None:
    """Make MODEL smaller: a model of the recipe, or a source. A run that was cut goes on where it stopped."""
    from server.quantizing import Asked
    from server.quantizing import quantize as put

    sys.exit(put(_loaded(recipe), Asked(model, **asked), _out, _err))


@main.command("eval")
@click.argument("model", default="reader")
@recipe_option.option
@click.option("--data", type=click.Path(path_type=Path), required=True, help="JSON Lines: passages with questions.")
@click.option("--most", type=click.IntRange(min=1), help="Ask only the first so many questions.")
def evaluate(model: str, recipe: Path, data: Path, most: int | None) -> None:
    """Measure how well MODEL, a reader of the recipe, answers the questions of a file: F1, exact match, refusals."""
    from server.evaluating import evaluate as put

    sys.exit(put(_loaded(recipe), model, data, most, _out, _err))


@main.group(invoke_without_command=True)
@recipe_option.option
@click.option("--json", "as_json", is_flag=True, help="Print everything, JSON Schemas included.")
@click.pass_context
def tools(context: click.Context, recipe: Path, as_json: bool) -> None:
    """List the tools of a recipe with their parameters and state; starts them for that, in processes of their own."""
    context.obj = _loaded(recipe)
    if context.invoked_subcommand is None:
        from server.tooling import show as put

        sys.exit(put(context.obj, _out, _err, as_json=as_json))


@tools.command("call")
@click.argument("name")
@click.argument("arguments", default="{}")
@click.option("--key", envvar="HEARTH_KEY", help="An API key, where the running server asks for one to search.")
@click.pass_obj
def call_tool(recipe: Recipe, /, name: str, arguments: str, key: str | None) -> None:
    """Call the tool NAME with ARGUMENTS, a JSON object, and print what it returns."""
    from server.tooling import call as put

    sys.exit(put(recipe, name, arguments, key, _out, _err))


@main.group(invoke_without_command=True)
@recipe_option.option
@click.pass_context
def engines(context: click.Context, recipe: Path) -> None:
    """List the engines of this machine and their state."""
    context.obj = _loaded(recipe).server.data
    if context.invoked_subcommand is None:
        from server.building import show as put

        sys.exit(put(context.obj, _out))


@engines.command()
@click.argument("engine", type=click.Choice(["openvino", "llamacpp", "exllamav2", "exllamav3"]))
@click.option(
    "--without-grammars", is_flag=True, help="For llamacpp: without what needs git, cargo and a way to GitHub."
)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="CAPABILITY",
    help="For exllamav2 and exllamav3: the compute capability of a GPU, such as 9.0; else those of this machine's.",
)
@click.option(
    "--limit",
    type=click.FloatRange(min=0.01),
    default=60.0,
    show_default=True,
    metavar="MINUTES",
    help="Give up after this long.",
)
@click.pass_obj
def build(data: Path, engine: str, without_grammars: bool, gpus: tuple[str, ...], limit: float) -> None:
    """Compile ENGINE for this machine's processor or GPUs; takes minutes."""
    if engine == "llamacpp":
        from server.building.llamacpp import build as compiled

        sys.exit(compiled(data, not without_grammars, 60.0 * limit, _out, _err))
    if engine == "openvino":
        from server.building.openvino import build as made

        sys.exit(made(data, 60.0 * limit, _out, _err))
    from server.building.exllama import build as put

    sys.exit(put(engine, data, gpus, 60.0 * limit, _out, _err))


@main.group()
@recipe_option.option
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


@main.group(invoke_without_command=True)
@recipe_option.option
@click.option("--key", envvar="HEARTH_KEY", help="An API key with the scope admin, where the server asks for one.")
@click.pass_context
def policies(context: click.Context, recipe: Path, key: str | None) -> None:
    """List what the server does by itself: when it will, and how it went last."""
    context.obj = (recipe, key)
    if context.invoked_subcommand is None:
        from server.policing import show as put

        sys.exit(put(_loaded(recipe), key, _out, _err))


@policies.command("run")
@click.argument("name")
@click.pass_obj
def run_policy(obj: tuple[Path, str | None], name: str) -> None:
    """Run the policy NAME now: in the running server, else here."""
    from server.policing import run as put

    sys.exit(put(_loaded(obj[0]), name, obj[1], _out, _err))


@main.group()
@recipe_option.option
@click.pass_context
def backup(context: click.Context, recipe: Path) -> None:
    """What the policy `backup` has kept: list it, verify it; `hearth restore` puts it back."""
    context.obj = recipe


@backup.command("list")
@click.pass_obj
def list_backup(recipe: Path) -> None:
    """List the snapshots, oldest first."""
    from server.backups import of_recipe
    from server.backups import show as put

    sys.exit(put(of_recipe(_loaded(recipe)), _out, _err))


@backup.command("verify")
@click.pass_obj
def verify_backup(recipe: Path) -> None:
    """Read every byte of every snapshot and take its sum again; names each file that is damaged."""
    from server.backups import of_recipe
    from server.backups import verify as put

    sys.exit(put(of_recipe(_loaded(recipe)), _out, _err))


@backup.command("key")
def backup_key() -> None:
    """Make an age identity for `policies.backup.key` and print it, this once."""
    from server.backups import new_key as put

    sys.exit(put(_out, _err))


@main.command()
@recipe_option.option
@click.option("--from", "place", metavar="PLACE", help="A folder or s3://BUCKET/PREFIX: needs no recipe.")
@click.option("--manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A snapshot's file.")
@click.option("--gateway", metavar="URL", help="With --manifest, a gateway of IPFS that gives what it lists.")
@click.option("--endpoint", help="With --from, the URL of a store that is not Amazon's.")
@click.option(
    "--key-file", type=click.Path(path_type=Path, dir_okay=False), help="The age identity of --from or --manifest."
)
@click.option("--at", metavar="TIME", help="A snapshot's name, or a time: the newest that is not younger than it.")
@click.option("--what", metavar="PART", help="Only this part, such as knowledge/handbook, models/chat or recipe.")
@click.option("--to", type=click.Path(path_type=Path, file_okay=False), help="Into this folder.")
@click.option("--in-place", is_flag=True, help="Where it was; what it replaces is kept beside. Stop the server first.")
def restore(
    recipe: Path,
    place: str | None,
    manifest: Path | None,
    gateway: str | None,
    endpoint: str | None,
    key_file: Path | None,
    at: str | None,
    what: str | None,
    to: Path | None,
    in_place: bool,
) -> None:
    """Write a snapshot back: the newest, or the one of a time, whole or a part of it."""
    if (to is None) != in_place:
        raise click.UsageError("say --to FOLDER, or --in-place")
    if place is not None and in_place:
        raise click.UsageError("--from goes with --to: only a recipe's own backup is believed where its files were")
    if (manifest is None) != (gateway is None) or (manifest is not None and (to is None or place is not None)):
        raise click.UsageError("--manifest and --gateway go together, and with --to")
    from server.backups import at_place, fetch, of_recipe
    from server.backups import restore as put

    if manifest is not None and gateway is not None and to is not None:
        sys.exit(fetch(manifest, gateway, key_file, what, to, _out, _err))
    if place is not None:
        with tempfile.TemporaryDirectory() as cache:
            opened = at_place(place, endpoint, key_file, Path(cache))
            sys.exit(put(opened, ServerSpec().listen, at, what, to, _out, _err))
    loaded = _loaded(recipe)
    sys.exit(put(of_recipe(loaded), loaded.server.listen, at, what, to, _out, _err))


def _loaded(path: Path, overrides: dict[str, str] | None = None) -> Recipe:
    try:
        return load(path, overrides=overrides or {})
    except RecipeError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
