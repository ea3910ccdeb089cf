"""The table's columns, and documents as rows of it. Knows the store's format and no connection."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from server.knowledge.attributes import Types, columns, read, written
from server.knowledge.document import Chunk, Document, digest
from server.knowledge.stored import Cut

SEPARATOR = " > "
_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.json_(pa.utf8()),
}

HIT_COLUMNS = (
    "id", "document_id", "uri", "filename", "title", "heading", "text", "start", "end", "token_count", "page", "licence"
)  # fmt: skip
STATE_COLUMNS = ("document_id", "document_hash", "source", "uri", "path", "licence")
LIST_COLUMNS = ("document_id", "uri", "filename", "title", "licence")


def schema(dimension: int, types: Types, metadata: Mapping[bytes | str, bytes | str]) -> pa.Schema:
    """`indexed` is what words are searched in: the text with its title and headings; `content_hash` is its hash."""
    text = [
        "id", "document_id", "uri", "filename", "title", "heading", "text", "indexed", "content_hash", "document_hash",
        "source",
    ]  # fmt: skip
    fields: list[pa.Field[Any]] = [
        *(pa.field(name, pa.string(), nullable=False) for name in text),
        *(pa.field(name, pa.string()) for name in ("path", "licence")),
        pa.field("page", pa.int32()),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("start", "end", "position", "token_count")),
        pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        *(pa.field(name, _TYPES[kind]) for name, kind in columns(types).items()),
    ]
    return pa.schema(fields, metadata=dict(metadata))


def rows(cuts: Iterable[Cut], types: Types, dimension: int) -> pa.Table:
    """One row a chunk."""
    held = list(cuts)
    like = schema(dimension, types, {})
    records = [_row(cut.document, n, chunk, types) for cut in held for n, chunk in enumerate(cut.chunks)]
    flat = np.concatenate([cut.vectors for cut in held] or [np.empty((0, dimension), np.float32)]).astype(np.float32)
    arrays: dict[str, Any] = {
        name: pa.array([record[name] for record in records], type=like.field(name).type)
        for name in like.names
        if name != "vector"
    }
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float32()), dimension)
    return pa.Table.from_arrays([arrays[name] for name in like.names], schema=like)


def _row(document: Document, position: int, chunk: Chunk, types: Types) -> dict[str, Any]:
    return {
        "id": f"chunk-{digest(document.id, str(position), chunk.text)}",
        "document_id": document.id,
        "uri": document.uri,
        "filename": document.filename,
        "title": document.title,
        "heading": SEPARATOR.join(chunk.heading),
        "text": chunk.text,
        "indexed": chunk.indexed,
        "content_hash": digest(chunk.indexed),
        "document_hash": document.hash,
        "source": document.source,
        "path": document.path,
        "licence": document.licence,
        "page": chunk.page,
        "start": chunk.start,
        "end": chunk.end,
        "position": position,
        "token_count": chunk.tokens,
        **written(document.attributes, types),
    }


def restored(found: Sequence[Mapping[str, Any]], types: Types) -> Document:
    """A document put together from its rows: the text in its places, white space between chunks as blank lines.

    A page begins where its first chunk does; one that no chunk begins on lies before the next. Rows of an older layout
    may lack pages and licence.
    """
    ordered = sorted(found, key=lambda row: row["position"])
    text = ""
    pages: list[int] = []
    for row in ordered:
        pages += [row["start"]] * ((row.get("page") or 0) - len(pages))
        if len(text) < row["end"]:
            gap = row["start"] - len(text)
            text += ("\n" * gap if gap > 0 else "") + row["text"][max(0, -gap) :]
    first = ordered[0]
    return Document(
        id=first["document_id"],
        uri=first["uri"],
        filename=first["filename"],
        text=text,
        title=first["title"],
        pages=tuple(pages),
        licence=first.get("licence"),
        attributes=read(first, types),
        source=first["source"],
        path=first["path"],
        hash=first["document_hash"],
    )
