"""JSON Lines: a line with a `text` is a section under its title, every other line a record of paths."""

from collections.abc import Iterator
from typing import Any

from server.knowledge.extract.json_paths import json_lines, record_of
from server.knowledge.extract.reading import Reading
from server.knowledge.outline import Block, Kind, blocks


def read_json_lines(text: str) -> Reading:
    """Raises Unreadable, naming the line."""
    parts: list[str] = []
    outline: list[Block] = []
    at = 0
    for _, value in json_lines(text):
        part = value["text"] if _is_text(value) else record_of(value)
        if not part.strip():
            continue
        parts.append(part)
        outline += _moved(_section(value, part), at)
        at += len(part) + 2
    return Reading(text="\n\n".join(parts), outline=tuple(outline))


def _is_text(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def _section(value: Any, part: str) -> list[Block]:
    """Blocks of one line's text; the heading that names them ends the one before."""
    if not _is_text(value):
        return [Block(Kind.HEADING, 0, 0, 1), Block(Kind.RECORD, 0, len(part))]
    title = next((value[key] for key in ("title", "id") if isinstance(value.get(key), str | int)), "")
    return [Block(Kind.HEADING, 0, 0, 1, " ".join(str(title).split())[:400]), *blocks(part, 0, markdown=False)]


def _moved(found: list[Block], by: int) -> Iterator[Block]:
    for block in found:
        yield Block(block.kind, block.start + by, block.end + by, block.level, block.title)
