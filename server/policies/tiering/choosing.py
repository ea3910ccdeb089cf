"""Which documents and models move: decided of when each was changed and found; does no I/O and asks no clock."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path

from server.knowledge.catalogue import Use

_TOGETHER = 256
_BYTES = 16 * 2**20


def unasked(since: Mapping[Path, float], pinned: Collection[Path], after: float, now: float) -> list[Path]:
    """Weights of models that nobody asked for `after` seconds, those longest out of use first; never pinned ones."""
    idle = [(last, path) for path, last in since.items() if path not in pinned and now - last >= after]
    return [path for _, path in sorted(idle)]


def unused(uses: Iterable[Use], after: float, now: float) -> list[str]:
    """Documents that were neither changed nor found for `after` seconds, those longest out of use first."""
    idle = [(max(use.since, use.used), use.document) for use in uses]
    return [document for last, document in sorted(idle) if now - last >= after]


def wanted(cold: Mapping[str, float], uses: Iterable[Use]) -> list[str]:
    """Cold documents that were found since they moved; `cold` says when each did. The most wanted come first."""
    found = [(-use.reads, use.document) for use in uses if use.used > cold.get(use.document, inf)]
    return [document for _, document in sorted(found)]


def batches(ids: Sequence[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """In their order, as many as move together by number and bytes."""
    part: list[str] = []
    held = 0
    for each in ids:
        if part and (len(part) >= _TOGETHER or held + sizes.get(each, 0) > _BYTES):
            yield part
            part, held = [], 0
        part.append(each)
        held += sizes.get(each, 0)
    if part:
        yield part
