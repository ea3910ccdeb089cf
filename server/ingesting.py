"""`hearth ingest`: documents from the terminal into a collection, beside a running server or without one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from config import Recipe
from server.errors import HearthError
from server.knowledge import Advance, BulkReport, Collection, IngestReport, Refused, bring_lines
from server.knowledge.record import Records
from server.knowledge.tiering import tiers_of
from server.models.served import Served
from server.runtime import VERSION, model_of
from server.state import State
from server.telemetry import Telemetry

_PIECE = 1024**2


def ingest(
    recipe: Recipe, path: Path, collection: str | None, out: Console, err: Console, *, lines: bool = False
) -> int:
    """Add what lies under `path`; prints counts and everything that was left out, with its reason.

    With `lines`, `path` is a file of JSON Lines and each line is a document. Returns the exit code: 1 where nothing
    could be added, or a line was refused.
    """
    names = list(recipe.knowledge)
    name = collection or (names[0] if len(names) == 1 else None)
    if name is None or name not in recipe.knowledge:
        err.print(f"Say which collection with --collection: {', '.join(names) or 'this recipe has none'}.")
        return 1
    if lines and not path.is_file():
        err.print(f"{path} is no file of JSON Lines.", markup=False)
        return 1
    try:
        with _bar(out) as bar:
            task = bar.add_task(f"Loading models.{recipe.knowledge[name].embed} ...", total=None)

            def told(what: str, done: int, total: int) -> None:
                bar.update(task, description=what, completed=done, total=total)

            report = asyncio.run(_ingest(recipe, path, name, told, lines=lines))
    except (HearthError, OSError) as error:
        err.print(str(error), markup=False)
        return 1
    if isinstance(report, BulkReport):
        return _print_lines(report, name, out)
    _print(report, name, out)
    return 0


async def _ingest(
    recipe: Recipe, path: Path, name: str, told: Callable[[str, int, int], None], *, lines: bool
) -> IngestReport | BulkReport:
    spec, data = recipe.knowledge[name], recipe.server.data
    telemetry = Telemetry(recipe.server.telemetry, VERSION)
    model = model_of(spec.embed, recipe, telemetry)

    def files(done: Advance) -> None:
        # By bytes: of a hundred small files and a large one, the large one is the work.
        told(f"{done.files:,} of {done.all_files:,} files, {done.chunks:,} chunks", done.bytes, done.all_bytes)

    def bulk(done: int, report: BulkReport) -> None:
        count = report.written + report.unchanged + report.deleted
        told(f"{count:,} documents, {report.refused:,} lines refused", done, path.stat().st_size)

    try:
        async with State.open(data / "state.db") as state, model:
            await model.ready()
            refused, tier = Refused(state, name), tiers_of(recipe, state).get(name)
            folder = data / "knowledge" / name
            async with (
                _older(recipe, spec.embed, model, folder, telemetry) as others,
                Collection(name, spec, model, folder, refused=refused, others=others, tier=tier) as collection,
            ):
                if lines:
                    return await bring_lines(collection, _pieces(path), bulk)
                return await collection.ingest(path, files)
    finally:
        await asyncio.to_thread(telemetry.close)


@asynccontextmanager
async def _older(
    recipe: Recipe, now: str, model: Served, folder: Path, telemetry: Telemetry
) -> AsyncIterator[list[Served]]:
    """The model that the index in `folder` was made with, loaded, where it is not the one of `now` but declared yet.

    Without it, what is brought in before the new index is built could be found by its words alone.
    """
    try:
        record = await asyncio.to_thread(Records(folder).read)
    except (OSError, ValueError):  # which the collection tells when it is opened
        record = None
    made = None if record is None else record.made
    names: list[str] = []
    if made is not None and made.identity and model.card is not None and model.card.identity != made.identity:
        names = [name for name, spec in recipe.models.items() if spec.task == "embed" and name != now]
        names.sort(key=lambda name: name != made.model)
    for name in names:
        async with model_of(name, recipe, telemetry) as other:
            with suppress(HearthError):  # one that cannot be loaded is none
                await other.ready()
            if made is not None and other.card is not None and other.card.identity == made.identity:
                yield [other]
                return
    yield []


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _print(report: IngestReport, name: str, out: Console) -> None:
    out.print(f"{name}: {report}", markup=False)
    _print_reasons((each.reason for each in report.skipped), out)
    for skipped in report.skipped:
        out.print(f"  skipped {skipped}", markup=False)


def _print_lines(report: BulkReport, name: str, out: Console) -> int:
    counts = f"{report.written:,} written, {report.unchanged:,} unchanged, {report.deleted:,} deleted"
    out.print(f"{name}: {counts}, {report.refused:,} refused", markup=False)
    for each in report.told:
        out.print(f"  refused line {each.line}{f' ({each.id})' if each.id else ''}: {each.reason}", markup=False)
    if (more := report.refused - len(report.told)) > 0:
        out.print(f"  and {more:,} more lines", markup=False)
    return 1 if report.refused else 0


def _print_reasons(reasons: Iterable[str], out: Console) -> None:
    """How many there are of each reason that more than one has."""
    for reason, count in Counter(reasons).most_common():
        if count > 1:
            out.print(f"  {count:,} because {reason}", markup=False)


def _bar(out: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)
