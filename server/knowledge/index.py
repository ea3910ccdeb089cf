"""Which indices a table should have by now, and how they are made. Knows no connection.

LanceDB searches a table without any: an index is due when going without costs more than keeping it. Rows that came
after an index was last refreshed are searched one by one beside it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lancedb.index import FTS, Bitmap, BTree, IvfRq

KEYS = ("id", "document_id")
WORDS = "indexed"
VECTOR_ROWS = 20_000
_VECTOR_BITS = 6
"""Of each number of a vector in the index. With one bit most of the nearest are missed where vectors have no clusters,
however many are compared afterwards; with six few have to be, and they take a fifth of what the vectors do."""
_FILTER_ROWS = 4096


def due(rows: int, made: Collection[str], filtered: Mapping[str, str]) -> dict[str, Any]:
    """Configurations by column, for a table of `rows` with indices on `made`; that of words is not among them.

    `filtered` are the attributes' columns that searches filtered by, each with its type.
    """
    if rows == 0:
        return {}
    wanted: dict[str, Any] = {key: BTree() for key in KEYS}
    if rows >= VECTOR_ROWS:
        wanted["vector"] = IvfRq(distance_type="cosine", num_bits=_VECTOR_BITS)
    if rows >= _FILTER_ROWS:
        wanted |= {column: config for column, kind in filtered.items() if (config := _of_attribute(kind)) is not None}
    return {column: config for column, config in wanted.items() if column not in made}


def kept(indices: Iterable[Any]) -> set[str]:
    """Columns of those of a table's indices that need not be made anew; one over vectors with fewer bits has to be."""
    return {column for each in indices if not _is_coarse(each) for column in each.columns}


def _is_coarse(each: Any) -> bool:
    compression = each.index_details.get("compression") or {}
    return bool(each.columns == ["vector"] and compression.get("num_bits", _VECTOR_BITS) < _VECTOR_BITS)


def words(language: str | None) -> FTS:
    """Of the text column; words lose their endings as `language` says, LanceDB's name of it, or keep them with None.

    Made after the first rows: on an empty table its ranking is off until the next optimize.
    """
    # icu/split cuts like the simple tokenizer where words have spaces, and by dictionary where they have none; stop
    # words stay, so that a query of nothing else still finds something.
    return FTS(
        base_tokenizer="icu/split",
        remove_stop_words=False,
        stem=language is not None,
        ascii_folding=True,
        language=language or "English",
    )


def _of_attribute(kind: str) -> Any:
    match kind:
        case "string" | "bool":
            return Bitmap()
        case "int" | "float":
            return BTree()
    return None  # JSON, which filters look into
