"""`hearth check`: which engine each model of a recipe gets and why, how much memory, and everything that cannot be."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from config import Recipe
from config.model import LocalModel
from server.models.fit import Plan, broken, overfull, plans, room, size


def check(recipe: Recipe, out: Console, err: Console) -> int:
    """Print one line for each model, then every fault; returns the exit code. Reads headers, loads no weights."""
    found = plans(recipe)
    free = room()
    faults = [*broken(recipe, found), *overfull(recipe, found, free)]
    if not faults:
        out.print(
            f"{recipe.path}: ok ({len(recipe.models)} models, {len(recipe.knowledge)} collections, "
            f"{len(recipe.assistants)} assistants)",
            markup=False,
        )
    if found:
        _print(found, out)
        out.print(_sum(found, free), markup=False)
    for fault in faults:
        err.print(fault, markup=False)
    return 1 if faults else 0


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
    if plan.absent:
        return "not on this machine yet; `hearth pull` fetches it"
    return str(plan.choice) if plan.choice is not None else "no engine"


def _memory(plan: Plan) -> str:
    if plan.memory is None or not plan.memory.total:
        return ""
    return str(plan.memory) if plan.stays else f"{plan.memory}, freed when idle"


def _sum(found: list[Plan], free: int | None) -> str:
    total = sum(plan.memory.total for plan in found if plan.memory is not None)
    unknown = sum(plan.memory is None for plan in found)
    beside = f", not counting {unknown} of which nothing is known yet" if unknown else ""
    of = f"; {size(free)} are free on this machine" if free is not None else ""
    return f"all models together: {size(total)} of memory{beside}{of}"
