"""What an ingest brings: the declared sources, a folder by hand. Knows no chunks."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path

from config.knowledge import FilesSource, Source
from server.errors import InvalidValue
from server.knowledge.document import document_id
from server.knowledge.ingest import Ingest
from server.knowledge.report import Progress, Skipped
from server.knowledge.sources.files import FoundFile, base_of, plain, scan, scan_folder
from server.knowledge.stored import Stored

INGESTED = "ingest"
"""The source of documents that were brought by hand; no scan of the declared sources deletes them."""

Known = Mapping[str, Stored]
Whole = Mapping[str, bool]
"""Of each declared source, whether its scan saw all of it."""


async def bring_sources(
    ingest: Ingest, sources: Sequence[Source], progress: Progress | None, changed: Set[Path] | None = None
) -> None:
    """Make the store hold what the declared files hold; what messages and requests brought, and came by hand, stays.

    Of `changed` are the files that are read again, at these paths and below them; None stands for all.
    """
    found: dict[str, tuple[FoundFile, str]] = {}
    whole = {source.name: False for source in sources}  # a stream's documents go only by its messages
    for source in sources:
        if not isinstance(source, FilesSource):
            continue
        name = source.name
        scanned = await asyncio.to_thread(scan, source.files)
        emptied = changed is None and not scanned.files and any(each.source == name for each in ingest.known.values())
        whole[name] = scanned.whole and not emptied
        ingest.skip(scanned.skipped)
        if emptied and scanned.whole:
            # Nobody saw them go: a volume that is not mounted looks the same.
            ingest.skip([Skipped(source.files, "no file is there any more; its documents are kept")])
        for file in scanned.files:
            found.setdefault(document_id(file.path), (file, name))  # the first source that names a file has it
    read_again = None if changed is None else await asyncio.to_thread(_resolved, changed)
    wanted = [pair for each, pair in found.items() if _may_differ(ingest.known.get(each), *pair, read_again)]
    await ingest.files(wanted, progress)
    await ingest.delete(vanished(ingest.known, found, whole))


def changed_alone(sources: Sequence[Source], changed: Set[Path]) -> list[tuple[FoundFile, str]] | None:
    """The changed files, each with the name of its source, where nothing else has to be looked at. Blocks.

    None where one is gone, a folder or a link, or lies in the folders of several sources: only a scan tells what
    becomes of those.
    """
    globs = [(source.files, source.name) for source in sources if isinstance(source, FilesSource)]
    found = []
    for path in changed:
        of = [(glob, name) for glob, name in globs if path.is_relative_to(base_of(glob).resolve())]
        if len(of) != 1 or (file := plain(of[0][0], path)) is None:
            return None
        found.append((file, of[0][1]))
    return found


def _resolved(paths: Set[Path]) -> Set[Path]:
    return {path.resolve() for path in paths}


def _may_differ(stored: Stored | None, file: FoundFile, source: str, changed: Set[Path] | None) -> bool:
    if changed is None or stored is None or stored.source != source:
        return True
    return not changed.isdisjoint((file.path, *file.path.parents))


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
        if each not in there and stored.is_declared and whole.get(stored.source, True)
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
    return stored.source if stored is not None and stored.is_declared else INGESTED
