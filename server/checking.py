"""`hearth check`: which engine each model of a recipe gets and why, how much memory, and everything that cannot be.

Also what the next start will do to collections that were made with another model or recipe.
"""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config import Recipe
from config.model import LocalModel
from server.knowledge.forecast import Change, forecast
from server.models.cold_weights import is_away, local_sources
from server.models.fit import Plan, broken, gpu_room, overfull, plans, room, size
from server.models.identity import identity
from server.models.kept import found as files_of
from server.models.prompts import Prompts
from server.tooling import inspect


def check(recipe: Recipe, out: Console, err: Console) -> int:
    """Print one line for each model, then every fault; returns the exit code. Reads headers, loads no weights."""
    found = plans(recipe)
    free, gpu = room(), gpu_room()
    tools, unsound = inspect(recipe)
    faults = [*broken(recipe, found), *overfull(recipe, found, free, gpu), *unsound]
    if not faults:
        out.print(
            f"{recipe.path}: ok ({len(recipe.models)} models, {len(recipe.knowledge)} collections, "
            f"{len(recipe.assistants)} assistants)",
            markup=False,
        )
    if found:
        _print(found, out)
        out.print(_sum([plan for plan in found if not _gpu(plan)], free), markup=False)
        if any(map(_gpu, found)):
            out.print(_sum_gpu([plan for plan in found if _gpu(plan)], gpu), markup=False)
    for line in tools:
        out.print(f"  {line}", markup=False)
    try:
        for change in _changes(recipe):
            out.print(f"  {change}", markup=False)
    except (OSError, ValueError, RuntimeError) as error:  # all that a table raises
        faults.append(f"{recipe.path}: knowledge: the tables in {recipe.server.data} cannot be read: {error}")
    for fault in faults:
        err.print(fault, markup=False)
    return 1 if faults else 0


def _changes(recipe: Recipe) -> list[Change]:
    """What of the collections on disk is not as the recipe says."""
    identities = {}
    for name in {spec.embed for spec in recipe.knowledge.values()}:
        model = recipe.models[name]
        if isinstance(model, LocalModel) and any(is_away(each.path) for each in local_sources(model)):
            continue  # what its vectors are like is known when it is back
        if isinstance(model, LocalModel) and (files := files_of(model.source, recipe.server.data)) is not None:
            identities[name] = identity(files, Prompts.of(model, files).document)
    return forecast(recipe.knowledge, identities, recipe.server.data / "knowledge")


def _print(found: list[Plan], out: Console) -> None:
    if not out.is_terminal:
        for plan in found:
            out.print(
                f"  {plan.name}: {', '.join(part for part in (_engine(plan), _memory(plan)) if part)}", markup=False
            )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "engine", "memory"):
        table.add_column(column, overflow="fold")
    for plan in found:
        table.add_row(*map(escape, (plan.name, _engine(plan), _memory(plan))))
    out.print(table, soft_wrap=False)


def _engine(plan: Plan) -> str:
    if plan.absent and isinstance(plan.spec, LocalModel) and plan.spec.source.is_made:
        return "Hearth makes it at the first start"
    if plan.cold:
        return f"{plan.cold}; the next request brings it back"
    if plan.absent:
        fetched = "`hearth pull` or the first start" if getattr(plan.spec, "download", False) else "`hearth pull`"
        return f"not on this machine yet; {fetched} fetches it"
    return str(plan.choice) if plan.choice is not None else "no engine"


def _memory(plan: Plan) -> str:
    if plan.memory is None or not plan.memory.total:
        return ""
    on = "GPU " if plan.memory.gpu else ""
    return f"{on}{plan.memory}" if plan.stays else f"{on}{plan.memory}, freed when idle"


def _gpu(plan: Plan) -> bool:
    return plan.memory is not None and plan.memory.gpu


def _sum_gpu(found: list[Plan], free: int | None) -> str:
    total = sum(plan.memory.total for plan in found if plan.memory is not None)
    of = "; no GPU tells what is free" if free is None else f"; {size(free)} are free"
    return f"models on the GPU: {size(total)} of its memory{of}"


def _sum(found: list[Plan], free: int | None) -> str:
    total = sum(plan.memory.total for plan in found if plan.memory is not None)
    unknown = sum(plan.memory is None for plan in found)
    beside = f", not counting {unknown} of which nothing is known yet" if unknown else ""
    of = f"; {size(free)} are free on this machine" if free is not None else ""
    return f"all models together: {size(total)} of memory{beside}{of}"
