"""The table's columns, and documents as rows of it. Knows the store's format and no connection."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa

from server.knowledge.attributes import OPEN_COLUMN, Types, column, columns, read, written
from server.knowledge.document import Chunk, Document, digest, joined
from server.knowledge.stored import Cut

SEPARATOR = " > "
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()
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
PACKED = "shown"
PACKED_COLUMNS = tuple(name for name in HIT_COLUMNS if name != "text")
"""What `PACKED` holds once more, in this order, as msgpack. From disk LanceDB reads each column of a hit by itself, and
eleven of them take as long as all the rest of a search. Rows of an earlier layout lack it, or ids in it."""
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
        pa.field(PACKED, pa.binary()),
    ]
    return pa.schema(fields, metadata=dict(metadata))


_PLAIN = {field.name: field.type for field in schema(1, {}, {})}


def types_of(like: pa.Schema) -> Types:
    """Of the attributes that a table's columns hold."""
    if OPEN_COLUMN in like.names:
        return None
    kinds = {kind: name for name, kind in _TYPES.items()}
    prefix = column("")
    return {name.removeprefix(prefix): kinds[like.field(name).type] for name in like.names if name.startswith(prefix)}


def rows(cuts: Iterable[Cut], types: Types, dimension: int) -> pa.Table:
    """One row a chunk."""
    held = list(cuts)
    like = schema(dimension, types, {})
    # Column by column, what is a document's own once for all its chunks: this is half of what an append costs.
    found = _of_chunks([(cut.document.id, n, chunk) for cut in held for n, chunk in enumerate(cut.chunks)])
    sizes = [len(cut.chunks) for cut in held]
    for name, values in _of_documents([cut.document for cut in held], types).items():
        found[name] = [value for value, size in zip(values, sizes, strict=True) for _ in range(size)]
    found[PACKED] = _packed([found[name] for name in PACKED_COLUMNS])
    flat = np.concatenate([cut.vectors for cut in held] or [np.empty((0, dimension), np.float32)]).astype(np.float32)
    arrays: dict[str, Any] = {name: pa.array(values, like.field(name).type) for name, values in found.items()}
    arrays["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), pa.float32()), dimension)
    return pa.Table.from_arrays([arrays[name] for name in like.names], schema=like)


def fitted(data: pa.Table, names: Sequence[str]) -> pa.Table:
    """Rows of any layout with the columns `names`, those of a table that may be of another one."""
    if PACKED in names and (PACKED not in data.column_names or _told(data[PACKED]) is None):
        packed = _packed([data[name].to_pylist() for name in PACKED_COLUMNS])
        others = data.drop_columns([PACKED]) if PACKED in data.column_names else data
        data = others.append_column(PACKED, pa.array(packed, pa.binary()))
    return data.select(list(names))


def unpacked(found: pa.Table) -> pa.Table | None:
    """With the columns that `PACKED` holds in its place; None where a row lacks one."""
    rows = _told(found[PACKED])
    if rows is None:
        return None
    values = zip(*rows, strict=True) if rows else [()] * len(PACKED_COLUMNS)
    told = {name: pa.array(each, _PLAIN[name]) for name, each in zip(PACKED_COLUMNS, values, strict=True)}
    beside = {name: found[name] for name in found.column_names if name != PACKED}
    return pa.table({**told, **beside})


def _told(packed: "pa.ChunkedArray[Any]") -> list[list[Any]] | None:
    """What each row holds in `PACKED_COLUMNS`; None where one does not tell all of it."""
    if packed.null_count:
        return None
    rows = [_decoder.decode(each) for each in cast("list[bytes]", packed.to_pylist())]
    return rows if all(len(row) == len(PACKED_COLUMNS) for row in rows) else None


def _packed(columns: Sequence[Sequence[Any]]) -> list[bytes]:
    return [_encoder.encode(row) for row in zip(*columns, strict=True)]


def digests(found: pa.Table) -> dict[str, str]:
    """SHA-256, in hex, of all that each document's rows hold, with their number; the rows may come in any order."""
    names = sorted(name for name in found.column_names if name not in ("vector", PACKED))
    values = [found[name].to_pylist() for name in names]
    size = found.num_rows
    column = cast("pa.FixedSizeListArray[Any, Any]", found["vector"].combine_chunks())
    vectors = column.flatten().to_numpy().astype("<f4").reshape(size, -1) if size else np.empty((0, 0))
    documents: list[Any] = found["document_id"].to_pylist()
    places: list[Any] = found["position"].to_pylist()
    sums: dict[str, Any] = {}
    for document, _, row in sorted(zip(documents, places, range(size), strict=True)):
        taken = sums.setdefault(document, hashlib.sha256())
        taken.update(msgspec.msgpack.encode([each[row] for each in values]))
        taken.update(vectors[row].tobytes())
    return {document: taken.hexdigest() for document, taken in sums.items()}


def _of_chunks(chunks: Sequence[tuple[str, int, Chunk]]) -> dict[str, list[Any]]:
    """Columns by name, of chunks with their document and their place in it."""
    return {
        "id": [f"chunk-{digest(document, str(n), chunk.text)}" for document, n, chunk in chunks],
        "heading": [SEPARATOR.join(chunk.heading) for _, _, chunk in chunks],
        "text": [chunk.text for _, _, chunk in chunks],
        "indexed": [chunk.indexed for _, _, chunk in chunks],
        "content_hash": [digest(chunk.indexed) for _, _, chunk in chunks],
        "page": [chunk.page for _, _, chunk in chunks],
        "start": [chunk.start for _, _, chunk in chunks],
        "end": [chunk.end for _, _, chunk in chunks],
        "position": [n for _, n, _ in chunks],
        "token_count": [chunk.tokens for _, _, chunk in chunks],
    }


def _of_documents(documents: Sequence[Document], types: Types) -> dict[str, list[Any]]:
    attributes = [written(document.attributes, types) for document in documents]
    return {
        "document_id": [document.id for document in documents],
        "uri": [document.uri for document in documents],
        "filename": [document.filename for document in documents],
        "title": [document.title for document in documents],
        "document_hash": [document.hash for document in documents],
        "source": [document.source for document in documents],
        "path": [document.path for document in documents],
        "licence": [document.licence for document in documents],
        **{name: [each[name] for each in attributes] for name in columns(types)},
    }


def restored(found: Sequence[Mapping[str, Any]], types: Types) -> Document:
    """A document put together from its rows, the text in its places.

    A page begins where its first chunk does; one that no chunk begins on lies before the next. Rows of an older layout
    may lack pages and licence.
    """
    ordered = sorted(found, key=lambda row: row["position"])
    pages: list[int] = []
    for row in ordered:
        pages += [row["start"]] * ((row.get("page") or 0) - len(pages))
    first = ordered[0]
    return Document(
        id=first["document_id"],
        uri=first["uri"],
        filename=first["filename"],
        text=joined(ordered, 0),
        title=first["title"],
        pages=tuple(pages),
        licence=first.get("licence"),
        attributes=read(first, types),
        source=first["source"],
        path=first["path"],
        hash=first["document_hash"],
    )
