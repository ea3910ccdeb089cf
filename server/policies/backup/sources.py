"""What of a recipe is backed up: which files there are, in groups whose files belong together.

The database of small facts is copied before the tables: what it says was read from a stream is then in them for sure.
Tables are leased, so that nobody cleans up the version that is read, and their versions are listed before their data.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from config import Recipe
from config.model import LocalModel, ReaderModel
from config.model import Source as Weights
from config.source import cold_record
from server.errors import ServiceError
from server.knowledge.catalogue import cold_counts
from server.models import cold_weights, kept
from server.models.cold_weights import Part
from server.models.header import WeightsError
from server.policies.backup.cold_documents import ColdDocuments
from server.policies.backup.making import Group, Source

STATE = "state.db"
_FOLDERS = ("knowledge", "vector_stores")
_TABLE = ".lance"
_LATEST = "_versions"
_NOT_KEPT = (".lock", ".tmp")
_SCRATCH = "copies-"


@contextmanager
def groups(recipe: Recipe, what: Sequence[str], *, with_cold: bool) -> Iterator[tuple[list[Group], tuple[str, ...]]]:
    """The groups of what is asked for, and what is left out with the reason, while the block lasts. `with_cold` says
    whether documents in cold storage are among it."""
    left_out: list[str] = []
    found: list[Group] = []
    data = recipe.server.data
    place = None if recipe.policies.tiering is None else recipe.policies.tiering.cold
    with _scratch(data / "cache") as scratch, ColdDocuments.held(data, place, scratch) as cold:
        if "recipe" in what:
            found.append(Group("recipe", lambda: _recipe(recipe)))
        if "models" in what:
            found += list(_models(recipe, left_out))
        if "knowledge" in what:
            found += _knowledge(data, scratch, cold.stay if with_cold else lambda: None)
            if with_cold:
                found += cold.groups(scratch / STATE)
            else:
                left_out += _cold_documents(recipe)
        with _leases([each for each in found if each.living], data):
            yield found, tuple(left_out)


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder for copies, as long as the block lasts. One that was left by a killed run goes: whoever holds a place is
    the only run of its data directory."""
    cache.mkdir(parents=True, exist_ok=True)
    for left in cache.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_SCRATCH, dir=cache) as folder:
        yield Path(folder)


def _recipe(recipe: Recipe) -> list[Source]:
    files = [recipe.path, *([recipe.server.keys_file] if recipe.server.keys_file else [])]
    return [Source(f"recipe/{file.name}", file) for file in files if file.is_file()]


# ---- models ---------------------------------------------------------------------------------------------------------


def _models(recipe: Recipe, left_out: list[str]) -> Iterator[Group]:
    for name, spec in recipe.models.items():
        if not isinstance(spec, LocalModel | ReaderModel):
            continue
        beside = [(f"{name}.{key}", getattr(spec, key, None)) for key in ("draft", "projector")]
        for title, source in ((name, spec.source), *beside):
            if not isinstance(source, Weights):
                continue
            if source.startswith(("pip:", "made:")):
                left_out.append(f"models/{title}: {source} is installed or made again, and not copied")
            elif not (files := weights(source, recipe.server.data)):
                left_out.append(f"models/{title}: {source} is not on this machine")
            else:
                yield Group(f"models/{title}", _listed(title, source, files))


def _listed(title: str, source: Weights, files: dict[str, Path]) -> Callable[[], list[Source]]:
    def listed() -> list[Source]:
        """With those in cold storage, of which only a folder's small files are here."""
        away = _away(source)
        here = {path: file for path, file in files.items() if path not in away}
        return [
            *(Source(f"models/{title}/{path}", file) for path, file in here.items()),
            *(
                Source(f"models/{title}/{path}", file, away=part.sha256, told=told)
                for path, (file, part, told) in away.items()
            ),
        ]

    return listed


def _away(source: Weights) -> dict[str, tuple[Path, Part, str]]:
    """The files of weights that are in cold storage, with where that is."""
    if not cold_weights.is_local(source):
        return {}
    try:
        record = cold_weights.record_of(source.path)
    except WeightsError as fault:
        raise ServiceError(str(fault)) from fault
    if record is None:
        return {}
    folder = cold_record(source.path).parent
    told = cold_weights.told_of(source.path)
    return {part.name: (folder / part.name, part, told) for part in cold_weights.missing(source.path, record)}


def weights(source: Weights, data: Path) -> dict[str, Path]:
    """The files of a model's weights, by their names within its folder; empty for what was not fetched yet."""
    if source.is_remote:
        here = kept.kept(source, data)
        return {} if here is None else {name: here.folder / name for name in (*here.files, kept.MANIFEST)}
    path = source.path
    if source.is_gguf:
        return {name: path.with_name(name) for name in kept.shards(path.name)}
    inside = (file for file in sorted(path.rglob("*")) if file.is_file() and file != cold_record(path))
    return {str(file.relative_to(path)): file for file in inside if not file.name.startswith(".")}


# ---- knowledge ------------------------------------------------------------------------------------------------------


def _knowledge(data: Path, scratch: Path, before: Callable[[], None]) -> list[Group]:
    """`before` is done before the first one is looked at."""

    def state() -> list[Source]:
        before()
        return _state(data, scratch)

    found = [Group("state", state)] if (data / STATE).exists() else []
    if (data / "files").is_dir():
        found.append(Group("files", lambda: _files(data), living=True))
    for kind in _FOLDERS:
        for folder in sorted(path for path in (data / kind).glob("*") if path.is_dir()):
            found.append(Group(f"{kind}/{folder.name}", _collection(kind, folder, scratch), living=True))
    return found


def _cold_documents(recipe: Recipe) -> Iterator[str]:
    """What is said of documents in cold storage that are left there: `state.db` has the record of them."""
    tiering = recipe.policies.tiering
    place = None if tiering is None else tiering.cold
    where = "a place that the recipe names no more" if place is None else getattr(place, "url", None) or place
    for collection, count in cold_counts(recipe.server.data / STATE).items():
        yield f"knowledge/{collection}: {count} documents are in cold storage at {where} and are not copied"


def _state(data: Path, scratch: Path) -> list[Source]:
    """A copy that is whole, made while others write."""
    copy = scratch / STATE
    with sqlite3.connect(data / STATE) as original, sqlite3.connect(copy) as target:
        original.backup(target)
    original.close()
    target.close()
    return [Source(STATE, copy, data / STATE)]


def _files(data: Path) -> list[Source]:
    return [
        Source(f"files/{file.parent.name}/{file.name}", file)
        for file in sorted((data / "files").glob("[0-9a-f][0-9a-f]/*"))
        if file.is_file()
    ]


def _collection(kind: str, folder: Path, scratch: Path) -> Callable[[], list[Source]]:
    """The record beside the tables is copied as it is when they are listed: it says which of them serves."""

    def files() -> list[Source]:
        sources = []
        for file in sorted(file for file in folder.iterdir() if file.is_file() and file.suffix not in _NOT_KEPT):
            copy = scratch / f"{kind}-{folder.name}-{file.name}"
            copy.write_bytes(file.read_bytes())
            sources.append(Source(f"{kind}/{folder.name}/{file.name}", copy, file))
        for table in sorted(folder.glob(f"*{_TABLE}")):
            sources += [Source(f"{kind}/{folder.name}/{file.relative_to(folder)}", file) for file in _table(table)]
        return sources

    return files


def _table(table: Path) -> list[Path]:
    """A table's files. Its versions are listed first and read last: each names only what was there before it."""
    versions = _under(table / _LATEST)
    rest = [file for file in _under(table) if _LATEST not in file.relative_to(table).parts[:1]]
    leases = [file for file in rest if "_refs" in file.relative_to(table).parts]
    return [file for file in rest if file not in set(leases)] + versions


def _under(folder: Path) -> list[Path]:
    found = []
    for place, _, names in os.walk(folder):
        found += [Path(place, name) for name in names if not name.endswith(_NOT_KEPT)]
    return sorted(found)


# ---- leases ---------------------------------------------------------------------------------------------------------


@contextmanager
def _leases(living: list[Group], data: Path) -> Iterator[None]:
    """Hold the newest version of every table, so that no process cleans it up while it is read."""
    folders = [data / group.name for group in living if group.name.partition("/")[0] in _FOLDERS]
    tables = [table for folder in folders for table in sorted(folder.glob(f"*{_TABLE}"))]
    if not tables:
        yield
        return
    from server.knowledge.store import Store

    async def hold(stack: AsyncExitStack) -> None:
        for table in tables:
            store = await Store.named(table.parent, table.stem)
            stack.push_async_callback(store.close)
            await stack.enter_async_context(store.leased())

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            runner.run(hold(stack))
            yield
        finally:
            runner.run(stack.aclose())
