"""`hearth knowledge`: what the collections hold and how they are kept, from the server or from the data folder."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, TypeVar

import httpx
import msgspec
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from config import Recipe
from config.fault import nearest
from server.answered import told
from server.api.knowledge.dead_letters import shown_letter
from server.api.knowledge.overview import shown, shown_refused
from server.api.knowledge.wire import (
    KnowledgeCollection,
    KnowledgeCollectionList,
    KnowledgeDeadLetter,
    KnowledgeDeadLetterList,
    KnowledgeRefused,
    KnowledgeRefusedList,
)
from server.errors import HearthError
from server.knowledge import DeadLetters, Refused, SourceState, overview
from server.state import State

T = TypeVar("T", bound=msgspec.Struct)

_ANSWER_SECONDS = 60.0
_PAGE = 100
_WIDE = 200

Listed = KnowledgeCollection | KnowledgeRefused | KnowledgeDeadLetter


def knowledge(
    recipe: Recipe,
    collection: str | None,
    what: str,
    key: str | None,
    out: Console,
    err: Console,
    *,
    as_json: bool,
) -> int:
    """Print `what` of one collection or of all: collections, refused or dead_letters; returns the exit code."""
    if collection is not None and collection not in recipe.knowledge:
        near = nearest(collection, recipe.knowledge)
        there = f"did you mean {near}?" if near else f"it has {', '.join(recipe.knowledge) or 'none'}"
        err.print(f"{recipe.path} has no collection {collection}; {there}", markup=False)
        return 1
    names = list(recipe.knowledge) if collection is None else [collection]
    try:
        try:
            found = _from_server(recipe, names, what, key)
        except httpx.ConnectError:
            err.print(f"No server is running; this is what lies in {recipe.server.data}.", markup=False)
            found = asyncio.run(_own(recipe, names, what))
    except (httpx.HTTPError, HearthError) as error:
        err.print(str(error), markup=False)
        return 1
    if as_json:
        out.print(msgspec.json.format(msgspec.json.encode(found)).decode(), markup=False)
        return 0
    if not out.is_terminal:
        out.width = _WIDE  # for whom reads it by program, a line stays a line
    for each in _shown(found, what):
        out.print(each)
    return 0


# ---- from the server -----------------------------------------------------------------------------------------------


def _from_server(recipe: Recipe, names: Sequence[str], what: str, key: str | None) -> Sequence[Listed]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    base = f"{recipe.server.listen.url}/v1"
    with httpx.Client(base_url=base, headers=headers, timeout=_ANSWER_SECONDS, trust_env=False) as client:
        match what:
            case "refused":
                return [each for name in names for each in _pages(client, name, what, KnowledgeRefusedList, "asc")]
            case "dead_letters":
                return [each for name in names for each in _pages(client, name, what, KnowledgeDeadLetterList, "desc")]
        listed = _told(client, "knowledge", KnowledgeCollectionList).data
        return [each for each in listed if each.id in names]


def _pages(client: httpx.Client, name: str, what: str, kind: type[Any], order: str) -> Iterator[Any]:
    after: dict[str, str] = {}
    while True:
        page = _told(client, f"knowledge/{name}/{what}", kind, limit=str(_PAGE), order=order, **after)
        yield from page.data
        if not page.has_more:
            return
        after = {"after": page.last_id}


def _told(client: httpx.Client, path: str, kind: type[T], **query: str) -> T:
    return told(client.get(path, params=query), kind)


# ---- from the data folder ------------------------------------------------------------------------------------------


async def _own(recipe: Recipe, names: Sequence[str], what: str) -> Sequence[Listed]:
    data = recipe.server.data
    if not (data / "state.db").is_file():
        return [] if what != "collections" else [await _collection(recipe, name, {}, 0) for name in names]
    async with State.open(data / "state.db") as state:
        found: list[Listed] = []
        for name in names:
            refused, letters = Refused(state, name), DeadLetters(state, name)
            match what:
                case "refused":
                    found += [shown_refused(each) for each in await refused.every()]
                case "dead_letters":
                    found += [shown_letter(name, each) for each in reversed(await letters.every())]
                case _:
                    found.append(await _collection(recipe, name, await letters.count(), await refused.count()))
        return found


async def _collection(recipe: Recipe, name: str, letters: dict[str, int], refused: int) -> KnowledgeCollection:
    spec = recipe.knowledge[name]
    return shown(
        name,
        spec,
        state="not_loaded",
        error=None,
        held=await overview(recipe.server.data / "knowledge" / name, name),
        sources={each.name: SourceState(each.name, "not_loaded") for each in spec.sources},
        letters=letters,
        refused=refused,
        texts=True,
    )


# ---- in words ------------------------------------------------------------------------------------------------------


def _shown(found: Sequence[Any], what: str) -> Iterator[Table | Text]:
    match what:
        case "refused":
            yield from _rows(
                ("file", "why", "brought by"), ((each.uri, each.reason, each.brought or "the recipe") for each in found)
            )
        case "dead_letters":
            cells = (
                (
                    each.id,
                    each.collection,
                    each.source,
                    f"{each.partition}/{each.offset}",
                    _when(each.sent_at),
                    each.reason,
                )
                for each in found
            )
            yield from _rows(("letter", "collection", "source", "place", "sent", "why"), cells)
        case _:
            for each in found:
                yield from _one(each)


def _rows(titles: Sequence[str], cells: Iterator[Sequence[str]]) -> Iterator[Table | Text]:
    table = Table(*titles, box=None, pad_edge=False)
    for row in cells:
        table.add_row(*map(Text, row))
    yield table if table.row_count else Text("There is none.")


def _one(of: KnowledgeCollection) -> Iterator[Table | Text]:
    yield Text(f"{of.id}: {of.state.replace('_', ' ')}{f', {of.error}' if of.error else ''}")
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(of):
        facts.add_row(Text(f"  {name}"), Text(value))
    yield facts


def _facts(of: KnowledgeCollection) -> Iterator[tuple[str, str]]:
    if of.documents is None or of.bytes is None or of.indices is None:
        yield "documents", "none yet, or its table is not open"
    else:
        yield "documents", f"{of.documents:,} in {of.chunks:,} chunks, version {of.version}"
        yield "on disk", f"{decimal(of.bytes)}, {of.versions:,} versions, {of.fragments:,} fragments"
        if of.hot:
            yield "in memory", f"{of.hot:,} rows"
        if of.cold:
            yield "in cold storage", f"{of.cold:,} documents"
        for index in of.indices:
            tokens = f", {index.language}, {index.tokenizer}" if index.language else ""
            behind = f", {index.unindexed:,} rows behind" if index.unindexed else ""
            yield f"index of {index.column}", f"{index.kind}, {index.rows:,} rows{behind}{tokens}"
        if not of.indices:
            yield "indices", "none"
    if of.rebuild is not None:
        done = f"{of.rebuild.done:,} of {of.rebuild.documents:,} documents"
        yield "new index", ", ".join(filter(None, (done, of.rebuild.reason, of.rebuild.note)))
    for source in of.sources:
        yield source.source, _source(source)
    yield "refused files", f"{of.refused:,}" + (f" (hearth knowledge {of.id} --refused)" if of.refused else "")
    yield "dead letters", f"{of.dead_letters:,}" + (f" (hearth knowledge {of.id} --dead)" if of.dead_letters else "")
    if of.maintenance_error:
        yield "maintenance", f"{of.maintenance_error} ({of.failures:,} passes failed)"


def _source(of: Any) -> str:
    parts = [of.state.replace("_", " ")]
    if of.last_at is not None:
        parts.append(f"last {'synced' if of.source.startswith('files') else 'message'} {_when(of.last_at)}")
    if of.lag_seconds is not None:
        parts.append(f"searchable after {of.lag_seconds:.3f} s")
    if of.behind is not None:
        parts.append(f"{of.behind:,} behind")
    if of.messages:
        parts.append(f"{of.messages:,} messages, {of.refused:,} refused since the start")
    if of.dead_letters:
        parts.append(f"{of.dead_letters:,} dead letters")
    return ", ".join([*parts, *([of.error] if of.error else [])])


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().isoformat(" ", "seconds")
