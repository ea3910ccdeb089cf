"""CSV and TSV: each row a record of `column: value` lines, so that every row says what its values are."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import islice

from server.knowledge.document import Unreadable
from server.knowledge.extract.reading import Reading, of_records

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 20
_SAMPLE_CHARACTERS = 64 * 1024
_MAX_COLUMNS = 2000


def read_table(text: str, *, tabs: bool) -> Reading:
    """The rows under the first one, which names the columns. `tabs` says that tabs separate the values.

    A value without a name is that of `column 5`; empty values and empty rows are left out. Raises Unreadable.
    """
    lines = csv.reader(StringIO(text), delimiter="\t" if tabs else _delimiter(text), strict=True)
    rows = _rows(lines)
    names = [" ".join(name.split()) for name in next(rows, [])]
    return of_records(record for row in rows if (record := _record(names, row)))


def _rows(lines: Iterator[list[str]]) -> Iterator[Sequence[str]]:
    """Rows that are not empty."""
    try:
        for row in lines:
            if len(row) > _MAX_COLUMNS:
                raise Unreadable(f"a row of it has {len(row)} columns, at most {_MAX_COLUMNS} are read")
            if any(value.strip() for value in row):
                yield row
    except csv.Error as error:
        line = getattr(lines, "line_num", 0)
        raise Unreadable(f"it is not a valid table (line {line}: {error})") from error


def _record(names: Sequence[str], row: Sequence[str]) -> str:
    pairs = ((names[n] if n < len(names) else "", " ".join(value.split())) for n, value in enumerate(row))
    return "\n".join(f"{name or f'column {n}'}: {value}" for n, (name, value) in enumerate(pairs, start=1) if value)


def _delimiter(text: str) -> str:
    """The one under which the first rows agree on most columns. The standard library's sniffer takes too long."""
    lines = list(islice(StringIO(text[:_SAMPLE_CHARACTERS]), _SAMPLE_ROWS))

    def agreement(delimiter: str) -> tuple[int, int]:
        try:
            widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter) if row)
        except csv.Error:
            return 0, 0
        width, rows = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        return (rows, width) if width > 1 else (0, 0)

    return max(_DELIMITERS, key=agreement)  # of equals the first: the comma
