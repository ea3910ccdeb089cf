"""`python -m tests.making NAME --out DIR`: builds one model and prints where it is."""

from pathlib import Path

import click

from server.models.made import gguf_file
from server.models.made.automaton import TEXT
from server.models.made.shapes import FAMILIES, SHAPES
from tests.making import folder
from tests.making.build import FORMATS, NAMES, Request, build

_QUANTS = tuple(dict.fromkeys(gguf_file.QUANTS + folder.QUANTS))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("name", type=click.Choice(NAMES))
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The folder to write; it may be one made before."
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="gguf", help="One GGUF file, or a Hugging Face folder."
)
@click.option(
    "--family",
    type=click.Choice(FAMILIES),
    default=None,
    help="llama, or qwen3 for shape 0.6b, unless said.",
    show_default=False,
)
@click.option(
    "--quant",
    type=click.Choice(_QUANTS),
    default=None,
    help="f32, or q8_0 for shape 0.6b, unless said.",
    show_default=False,
)
@click.option("--shape", type=click.Choice(SHAPES), default="small", help="Sizes of a random model.")
@click.option("--seed", default=0, help="The same seed gives the same weights in every format.")
@click.option("--rope-scaling", is_flag=True, help="Stretch the rope as Llama 3.1 does; llama only.")
@click.option("--shards", default=1, help="Files to split safetensors into.")
@click.option("--text", default=TEXT, help="What the automaton says; no word twice.", show_default=False)
def main(
    name: str,
    out: Path,
    form: str,
    family: str | None,
    quant: str | None,
    shape: str,
    seed: int,
    rope_scaling: bool,
    shards: int,
    text: str,
) -> None:
    """Build a model for tests: NAME is automaton, which says one known text, random, or tiny, which is trained."""
    large = shape == "0.6b"
    try:
        request = Request(
            name,
            family or ("qwen3" if large else "llama"),
            form,
            quant or ("q8_0" if large else "f32"),
            shape,
            seed,
            rope_scaling,
            shards,
            text,
        )
        click.echo(build(request, out))
    except (ValueError, FileExistsError) as error:
        raise click.UsageError(str(error)) from error


main()
