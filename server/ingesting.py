"""`hearth ingest`: documents from the terminal into a collection, beside a running server or without one."""

import asyncio
from pathlib import Path

from rich.console import Console
from rich.status import Status

from config import Recipe
from server.errors import HearthError
from server.knowledge import Collection, IngestReport
from server.runtime import VERSION, model_of
from server.telemetry import Telemetry


def ingest(recipe: Recipe, path: Path, collection: str | None, out: Console, err: Console) -> int:
    """Add what lies under `path`; prints counts and every skipped file with its reason; returns the exit code."""
    names = list(recipe.knowledge)
    name = collection or (names[0] if len(names) == 1 else None)
    if name is None or name not in recipe.knowledge:
        err.print(f"Say which collection with --collection: {', '.join(names) or 'this recipe has none'}.")
        return 1
    try:
        with out.status(f"Loading models.{recipe.knowledge[name].embed} ...") as status:
            report = asyncio.run(_ingest(recipe, path, name, status))
    except HearthError as error:
        err.print(error.message, markup=False)
        return 1
    out.print(f"{name}: {report}", markup=False)
    for skipped in report.skipped:
        out.print(f"  skipped {skipped}", markup=False)
    return 0


async def _ingest(recipe: Recipe, path: Path, name: str, status: Status) -> IngestReport:
    spec = recipe.knowledge[name]
    telemetry = Telemetry(recipe.server.telemetry, VERSION)
    model = model_of(spec.embed, recipe, telemetry)
    try:
        async with model:
            await model.ready()
            async with Collection(name, spec, model, recipe.server.data / "knowledge" / name) as collection:
                return await collection.ingest(path, lambda line: status.update(f"{name}: {line}"))
    finally:
        await asyncio.to_thread(telemetry.close)
