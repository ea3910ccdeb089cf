"""`python -m bench NAME`: runs one bench; exits with 1 where a bar falls short and with 2 where it could not run."""

import sys
from pathlib import Path

import click

from bench.table import CannotRun


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure Hearth. Each bench prints figure, value, bar, peer and verdict."""


_data = click.option("--data", help="The folder of the reading set; ../shared/data/reading unless said.")


@main.command()
@click.option("--quick", is_flag=True, help="Fewer rounds: a look, not a verdict.")
def gateway(quick: bool) -> None:
    """What the gateway and the hop to a worker cost, beside a raw ASGI app and an engine called in process."""
    from bench.gateway import bench

    sys.exit(bench(quick))


@main.command()
@_data
@click.option("--questions", default=300, show_default=True, help="How many questions; the sample is always the same.")
@click.option("--tools", is_flag=True, help="Measure calls of functions instead; needs no data.")
@click.option("--turns", default=220, show_default=True, help="How many turns with --tools.")
def reader(data: str | None, questions: int, tools: bool, turns: int) -> None:
    """How often the reader's quote holds the answer, and how fast; or how well it calls functions."""
    from bench import reader as answers
    from bench import reader_tools

    sys.exit(reader_tools.bench(turns) if tools else answers.bench(data, questions))


@main.command()
@_data
@click.option("--peer/--no-peer", default=True, show_default=True, help="Measure sentence-transformers beside it.")
def embed(data: str | None, peer: bool) -> None:
    """Embeddings beside sentence-transformers, in speed and in closeness."""
    from bench.embed import bench

    sys.exit(bench(data, peer))


@main.command()
@_data
@click.option("--questions", default=300, show_default=True, help="How many questions; the sample is always the same.")
@click.option(
    "--pages",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of pages such as page.de.html, measured instead: every heading asks for its section. "
    "/usr/share/doc/debian/FAQ is one, of Debian's packages debian-faq, debian-faq-de, debian-faq-zh-cn ...",
)
def retrieval(data: str | None, questions: int, pages: tuple[Path, ...]) -> None:
    """How well each leg, LanceDB's own hybrid search and ours find; on the handbook where there is no reading set."""
    from bench.retrieval import bench

    sys.exit(bench(data, questions, pages))


@main.command()
@click.option("--quick", is_flag=True, help="One round and no long prompt: a look, not a verdict.")
@click.option(
    "--only", help="The parts to measure, with commas between: http,bare,share,prefix,front,streams,long,memory."
)
@click.option(
    "--llama-server", help="llama.cpp's server to measure beside; the one of PATH, else xllamacpp, unless said."
)
def cpu(quick: bool, only: str | None, llama_server: str | None) -> None:
    """The CPU engine beside llama.cpp's server and GenAI's pipeline on the same files, some 15 minutes."""
    from bench.cpu import bench

    sys.exit(bench(quick, only, llama_server))


@main.command()
@click.option("--rows", default=100_000, show_default=True, help="Rows of the large table; the small has a tenth.")
@click.option("--writes", default=1000, show_default=True, help="Single-row writes.")
@click.option("--seconds", default=20, show_default=True, help="How long changes come from each way in.")
@click.option("--peers", is_flag=True, help="Measure Chroma, usearch and faiss on the same vectors.")
@click.option(
    "--only",
    help="The parts to measure, with commas between: queries,hybrid,singles,bulk,fresh, and million, which takes "
    "minutes and has ten times the rows.",
)
@click.option(
    "--at",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the table of `million` is made and stays; one that is there is measured as it is.",
)
def knowledge(rows: int, writes: int, seconds: int, peers: bool, only: str | None, at: Path | None) -> None:
    """Queries hot and from disk, bulk ingest, single writes and fresh changes, beside LanceDB alone."""
    from bench.knowledge import bench

    sys.exit(bench(rows, writes, seconds, peers, only, at))


@main.command()
@click.option("--turns", default=200, show_default=True, help="How many turns of two rounds each.")
def tools(turns: int) -> None:
    """What a round of tools costs beyond the tool and the model."""
    from bench.tools import bench

    sys.exit(bench(turns))


@main.command()
@click.option("--megabytes", default=2048, show_default=True, help="How much weights there are.")
@click.option(
    "--kills",
    default=3,
    show_default=True,
    help="Backups and restores to kill at random moments.",
)
def backup(megabytes: int, kills: int) -> None:
    """Backups beside SHA-256 alone, a second run, memory, and what kills leave behind."""
    from bench.backup import bench

    sys.exit(bench(megabytes, kills))


@main.command()
@click.option("--documents", default=1500, show_default=True, help="How many documents of four chunks each.")
@click.option("--queries", default=40, show_default=True, help="How many queries of each kind.")
@click.option(
    "--kills", default=3, show_default=True, help="Moves of documents and of weights to kill at random moments."
)
def tiering(documents: int, queries: int, kills: int) -> None:
    """Searches of local and of cold storage, requests to a bucket for each, how fast documents move, and kills."""
    from bench.tiering import bench

    sys.exit(bench(documents, queries, kills))


if __name__ == "__main__":
    try:
        main()
    except CannotRun as error:
        click.echo(str(error), err=True)
        sys.exit(2)
