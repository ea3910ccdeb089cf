"""What a format's reader makes of a file: its text, and what the format tells of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from server.knowledge.outline import Block, Kind


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The fields are those of a Document. `matter` is the mapping in front of the text, as its author wrote it."""

    text: str
    title: str = ""
    markdown: bool = False
    body: int = 0
    outline: tuple[Block, ...] | None = None
    pages: tuple[int, ...] = ()
    matter: Mapping[str, object] = field(default_factory=dict)


def of_records(records: Iterable[str]) -> Reading:
    """A text of records, a blank line between two; each is a block of its own."""
    parts: list[str] = []
    outline: list[Block] = []
    at = 0
    for record in records:
        parts.append(record)
        outline.append(Block(Kind.RECORD, at, at + len(record)))
        at += len(record) + 2
    return Reading(text="\n\n".join(parts), outline=tuple(outline))
