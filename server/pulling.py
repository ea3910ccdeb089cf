"""`hearth pull` and `hearth models`: weights fetched ahead of time, and what is on disk and loaded."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from config import Recipe
from config.fault import nearest
from config.model import EchoModel, LocalModel, ModelSpec, RemoteModel, Source
from server.models import cold_weights, kept
from server.models.cold_weights import Cold
from server.models.hub import Access, HubError, fetched, planned

_ANSWER_SECONDS = 5.0
_WIDE = 1000
"""Columns of a table that goes to a file."""


def pull(
    recipe: Recipe,
    sources: Sequence[str],
    model: str | None,
    out: Console,
    err: Console,
    access: Access,
    *,
    verify: bool = False,
    update: bool = False,
) -> int:
    """Fetch `sources`, else those of `model`, else of every model; what is on disk is left as it is. Weights in cold
    storage come back.

    Size and licence are printed before each download. `verify` fetches nothing and takes every sum again; `update` asks
    the hub what a branch or tag is now. Returns the exit code: 1 when one of them is not on disk, whole, in the end.
    """
    try:
        wanted = _given(sources) if sources else _declared(recipe, model)
    except ValueError as error:
        err.print(str(error), markup=False)
        return 1
    away = [] if verify or sources else _away(recipe, model)
    if not wanted and not away:
        out.print(f"{recipe.path}: nothing to fetch, no source starts with hf:.", markup=False)
    failed = 0
    for source in wanted:
        try:
            if verify:
                _verify(source, recipe.server.data, out)
            else:
                _pull(source, recipe.server.data, out, access, update=update)
        except HubError as error:
            err.print(str(error), markup=False)
            failed = 1
    cold = None if (tiering := recipe.policies.tiering) is None or tiering.models is None else tiering.models.cold
    for weights in away:
        try:
            with err.status(f"{weights}") as status:
                count = cold_weights.bring(weights, Cold.of(cold, os.environ), status.update)
            out.print(f"{weights}: {decimal(count)} came back from cold storage, sums ok", markup=False)
        except (OSError, ValueError) as error:
            err.print(str(error), markup=False)
            failed = 1
    return failed


def show(recipe: Recipe, out: Console) -> None:
    """Print a table of the declared models, and the weights on disk that none of them names."""
    data = recipe.server.data
    running = _running(recipe)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("model", "engine", "task", "source", "on disk", "server"):
        table.add_column(column, overflow="fold")
    for name, spec in recipe.models.items():
        server = _loaded(running.get(name)) if running is not None else "not running"
        source = _source(spec, recipe.path.parent)
        table.add_row(name, spec.engine, spec.task, source, _on_disk(spec, data), server)
        if isinstance(spec, LocalModel) and spec.draft is not None and not spec.draft.is_ngram:
            draft = _short(spec.draft, recipe.path.parent)
            table.add_row(f"{name}, draft", "", "", draft, _of_source(spec.draft, data), "")
        if isinstance(spec, LocalModel) and spec.projector is not None:
            projector = _short(spec.projector, recipe.path.parent)
            table.add_row(f"{name}, projector", "", "", projector, _of_source(spec.projector, data), "")
    if not out.is_terminal:
        out.width = _WIDE  # a file has none, and a name in pieces helps no script
    out.print(table)
    for line in _unnamed(recipe):
        out.print(line, markup=False)


# ---- fetching ------------------------------------------------------------------------------------------------------


def _given(sources: Sequence[str]) -> list[Source]:
    """What the command line names. Raises ValueError with the sentence a recipe would get."""
    parse = TypeAdapter(Source)
    try:
        return [parse.validate_python(each) for each in dict.fromkeys(sources)]
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from None


def _declared(recipe: Recipe, model: str | None) -> list[Source]:
    """The sources on the hub, drafts and projectors too. Raises ValueError where `model` is none of the recipe's."""
    if model is not None and model not in recipe.models:
        near = nearest(model, recipe.models)
        raise ValueError(
            f"{recipe.path} has no model {model}{f', did you mean {near}?' if near else f': it has {_all(recipe)}'}"
        )
    chosen = recipe.models.values() if model is None else [recipe.models[model]]
    return list(dict.fromkeys(source for spec in chosen for source in _sources(spec) if source.is_remote))


def _away(recipe: Recipe, model: str | None) -> list[Path]:
    """The weights in cold storage of one model, or of all."""
    chosen = recipe.models.values() if model is None else [recipe.models[model]]
    named = dict.fromkeys(source.path for spec in chosen for source in cold_weights.local_sources(spec))
    return [weights for weights in named if cold_weights.is_away(weights)]


def _sources(spec: ModelSpec) -> list[Source]:
    if isinstance(spec, EchoModel | RemoteModel):
        return []
    found = [spec.source]
    if isinstance(spec, LocalModel):
        if spec.draft is not None and not spec.draft.is_ngram:
            found.append(Source(spec.draft))
        if spec.projector is not None:
            found.append(Source(spec.projector))
    return found


def _all(recipe: Recipe) -> str:
    return ", ".join(recipe.models) or "none"


def _pull(source: Source, data: Path, out: Console, access: Access, *, update: bool) -> None:
    here = kept.kept(source, data)
    if here is not None and not update:
        out.print(f"{source}: on disk, {_described(here)}", markup=False)
        return
    plan = planned(source, access)
    if here is not None and here.manifest.commit == plan.commit:
        out.print(f"{source}: on disk and current, {_described(here)}", markup=False)
        return
    out.print(f"{plan}", markup=False)
    with _bar(out) as bar:
        task = bar.add_task("fetching", total=plan.bytes)
        path = fetched(plan, data, lambda count: bar.update(task, completed=count), access=access)
    out.print(f"{source}: sums ok, {path}", markup=False)


def _verify(source: Source, data: Path, out: Console) -> None:
    here = kept.kept(source, data)
    if here is None:
        raise HubError(f"{source}: not fetched; run `hearth pull`")
    with _bar(out) as bar:
        task = bar.add_task("reading", total=here.bytes)
        broken = kept.verify(here, partial(bar.advance, task))
    if broken:
        files = "; ".join(
            f"{name} is broken: its sum is {taken}, the hub said {here.manifest.files[name].sum}"
            for name, taken in broken.items()
        )
        raise HubError(f"{source}: {files}. Run `hearth pull`, which fetches it anew")
    out.print(f"{source}: sums ok, {_described(here)}", markup=False)


def _bar(out: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn(), console=out, transient=True)


# ---- what there is -------------------------------------------------------------------------------------------------


def _described(here: kept.Kept) -> str:
    return f"{decimal(here.bytes)}, revision {here.manifest.commit[:12]}"


def _on_disk(spec: ModelSpec, data: Path) -> str:
    return "-" if isinstance(spec, EchoModel | RemoteModel) else _of_source(spec.source, data)


def _of_source(source: Source, data: Path) -> str:
    if source.is_remote:
        here = kept.kept(source, data)
        if here is None:
            return "not fetched"
        return f"{_described(here)}, {'sums ok' if here.untouched else 'written since: hearth pull --verify'}"
    if source.is_made:
        return "made" if kept.found(source, data) else "not made yet"
    try:
        path = source.path
        if cold_weights.is_local(source) and cold_weights.is_away(path):
            return cold_weights.told_of(path)
        files = [path] if source.is_gguf else list(path.glob("*.safetensors"))
        return decimal(sum(file.stat().st_size for file in files))
    except OSError as error:
        return str(error)


def _source(spec: ModelSpec, folder: Path) -> str:
    match spec:
        case EchoModel():
            return "-"
        case RemoteModel(url=url):
            return url
        case _:
            return _short(spec.source, folder)


def _short(source: Source, folder: Path) -> str:
    if source.startswith(("hf:", "pip:", "made:")):
        return str(source)
    path = Path(source)
    return f"./{path.relative_to(folder)}" if path.is_relative_to(folder) else str(path)


def _unnamed(recipe: Recipe) -> list[str]:
    """Weights on disk that no model of the recipe opens, and downloads that were cut."""
    data = recipe.server.data
    named = {
        (here.folder, file)
        for source in _declared(recipe, None)
        if (here := kept.kept(source, data)) is not None
        for file in here.files
    }
    lines = []
    for folder, manifest in kept.everything(data):
        spare = [name for name in manifest.files if (folder / name).exists() and (folder, name) not in named]
        if spare:
            size = decimal(sum(manifest.files[name].bytes for name in spare))
            lines.append(f"No model names {manifest.repository} at {manifest.commit[:12]} ({size}): {folder}")
    lines += [f"Not finished: {name}, {decimal(arrived)} so far" for name, arrived in kept.unfinished(data)]
    return lines


def _running(recipe: Recipe) -> Mapping[str, Any] | None:
    """What the recipe's server says of its models; None where no Hearth answers."""
    url = f"{recipe.server.listen.url}/health"
    try:
        models = httpx.get(url, timeout=_ANSWER_SECONDS, trust_env=False).json()["models"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError):  # nobody, or another program
        return None
    return models if isinstance(models, dict) else None


def _loaded(health: Mapping[str, Any] | None) -> str:
    if health is None:
        return "not in the running recipe"
    memory = (health.get("weights_bytes") or 0) + (health.get("cache_bytes") or 0)
    said = health.get("error") or health.get("progress")
    parts = [str(health.get("state")), decimal(memory) if memory and health.get("state") == "ready" else None, said]
    return ", ".join(str(part) for part in parts if part)
