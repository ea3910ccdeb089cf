"""The table of behaviours and the tests are one: no row without a test, no test without a row."""

import ast
from collections import Counter

from tests.wire.rows import FOLDER, rows


def written() -> set[str]:
    return {
        f"{file.name}::{node.name}"
        for file in FOLDER.parent.glob("test_*.py")
        if file.name != "test_rows.py"
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_row_has_a_test() -> None:
    there = written()
    assert [row for row in rows() if row.test not in there] == []


def test_every_test_has_a_row() -> None:
    assert sorted(written() - {row.test for row in rows()}) == []


def test_rows_are_whole_and_their_ids_their_own() -> None:
    assert [row for row in rows() if not all((row.id, row.says, row.source, row.test))] == []
    assert [name for name, count in Counter(row.id for row in rows()).items() if count > 1] == []
