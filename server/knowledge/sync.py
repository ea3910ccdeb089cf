"""What an ingest brings: the declared sources, a folder by hand, what an older table holds. Knows no chunks."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from server.errors import InvalidValue
from server.knowledge.attributes import Types, fits
from server.knowledge.document import DECLARED, Document, Unreadable, document_id
from server.knowledge.extract import extract
from server.knowledge.ingest import Ingest
from server.knowledge.report import Progress
from server.knowledge.sources.files import FoundFile, scan, scan_folder
from server.knowledge.stored import Stored

if TYPE_CHECKING:
    from server.knowledge.store import Store

log = logging.getLogger(__name__)

INGESTED = "ingest"
"""The source of documents that were brought by hand; no scan of the declared sources deletes them."""

Known = Mapping[str, Stored]
Whole = Mapping[str, bool]
"""Of each declared source, whether its scan saw all of it."""


async def bring_sources(
    ingest: Ingest, store: "Store", globs: Sequence[str], types: Types, progress: Progress | None
) -> None:
    """Make the store hold what the declared sources hold, and what was brought by hand."""
    found: dict[str, tuple[FoundFile, str]] = {}
    whole: dict[str, bool] = {}
    for glob in globs:
        name = DECLARED + glob
        scanned = await asyncio.to_thread(scan, glob)
        whole[name] = scanned.whole
        ingest.skip(scanned.skipped)
        for file in scanned.files:
            found.setdefault(document_id(file.path), (file, name))  # the first source that names a file has it
    await ingest.files(list(found.values()), progress)
    await ingest.delete(vanished(ingest.known, found, whole))
    if store.older:
        await _take_over(ingest, store, found, whole, types)


async def bring_folder(ingest: Ingest, path: Path, progress: Progress | None) -> None:
    """Make the store hold the files below `path`, or the one file it is. Raises InvalidValue where nothing is there."""
    if not await asyncio.to_thread(path.exists):
        raise InvalidValue(f"{path} does not exist.", param="path")
    folder = await asyncio.to_thread(path.resolve)
    scanned = await asyncio.to_thread(scan_folder, folder)
    ingest.skip(scanned.skipped)
    found = {document_id(file.path): file for file in scanned.files}
    await ingest.files([(file, _source(ingest.known.get(each))) for each, file in found.items()], progress)
    if scanned.whole:
        await ingest.delete(gone_below(folder, ingest.known, found))


def vanished(known: Known, seen: Iterable[str], whole: Whole) -> list[str]:
    """Ids of documents whose file is gone or whose source is no longer declared; what a scan missed may still exist."""
    there = set(seen)
    return [
        each
        for each, stored in known.items()
        if each not in there and stored.source.startswith(DECLARED) and whole.get(stored.source, True)
    ]


def gone_below(folder: Path, known: Known, seen: Iterable[str]) -> list[str]:
    """Ids of documents that were brought by hand from below `folder` and are no longer there."""
    there = set(seen)
    return [
        each
        for each, stored in known.items()
        if each not in there
        and stored.source == INGESTED
        and stored.path is not None
        and Path(stored.path).is_relative_to(folder)
    ]


def _source(stored: Stored | None) -> str:
    """A file of a declared source stays with it when it is also brought by hand."""
    return stored.source if stored is not None and stored.source.startswith(DECLARED) else INGESTED


async def _take_over(ingest: Ingest, store: "Store", found: Iterable[str], whole: Whole, types: Types) -> None:
    """Bring what only tables of an older recipe or model hold, then drop them."""
    older = await store.older_documents()
    left = set(vanished({each: stored for each, (_, stored) in older.items()}, found, whole))
    for each, (table, stored) in older.items():
        if each not in ingest.known and each not in ingest.written and each not in left:
            await ingest.add(await _again(store, table, stored, types))
    await ingest.finish()
    log.info("%d documents were cut and embedded anew: the recipe or its model changed", len(ingest.written))
    await store.drop_older()


async def _again(store: "Store", table: str, stored: Stored, types: Types) -> Document:
    """The document from where it lay, or put together from its chunks where that is gone."""
    if stored.path is not None:
        try:
            return await asyncio.to_thread(extract, Path(stored.path), stored.uri, stored.source, types)
        except Unreadable as reason:
            log.warning("%s is taken over from its chunks: %s", stored.uri, reason)
    document = await store.older_document(table, stored.id, types)
    if types is None:
        return document
    kept = {name: value for name, value in document.attributes.items() if fits(value, types[name])}
    return replace(document, attributes=kept)
