"""Tables, JSON and JSON Lines become records that say by themselves what their values are."""

import pytest

from server.knowledge.counting import estimate
from server.knowledge.document import Document, Unreadable
from server.knowledge.extract import read_document
from server.knowledge.splitter import Limits, split


def read(text: str, name: str) -> Document:
    return read_document(text.encode(), "id", name, {})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'name,year,note\nAda,1815,"a, b"\nBob,,x\n'),
        ("a.csv", 'name;year;note\r\nAda;1815;"a, b"\r\n;;\r\nBob;;x'),
        ("a.csv", "\ufeffname\tyear\tnote\nAda\t1815\ta, b\n\nBob\t\tx\n"),
        ("a.csv", 'name,year,note\nAda,1815,"a,\u2028b"\nBob,,x\n'),
        ("a.tsv", "name\tyear\tnote\nAda\t1815\ta, b\nBob\t\tx\n"),
    ],
    ids=["commas", "semicolons", "tabs", "line separator", "tsv"],
)
def test_a_row_says_its_columns(name: str, text: str) -> None:
    assert read(text, name).text == "name: Ada\nyear: 1815\nnote: a, b\n\nname: Bob\nnote: x"


def test_values_without_a_column_and_columns_without_a_name_are_kept() -> None:
    assert read('a,,\n1,"two\nlines",3,4\n', "x.csv").text == "a: 1\ncolumn 2: two lines\ncolumn 3: 3\ncolumn 4: 4"


@pytest.mark.parametrize("text", ['a,b\n"x', 'a,b\n"x"y,2\n', "a\n" + "x" * 200_000, "," * 3000])
def test_a_broken_table_is_refused(text: str) -> None:
    with pytest.raises(Unreadable, match=r"not a valid table|columns"):
        read(text, "x.csv")


def test_no_row_is_cut_or_said_twice() -> None:
    rows = "".join(f"name number {n},{'. '.join(['Word'] * (n % 7 + 1))}.\n" for n in range(60))
    found = read("name,note\n" + rows, "x.csv")
    chunks = split(found, Limits(60, 20, 512), estimate)
    assert 5 < len(chunks) < 60
    assert [part for chunk in chunks for part in chunk.text.split("\n\n")] == found.text.split("\n\n")


def test_json_says_the_path_of_each_value() -> None:
    text = '{"v": 1, "server": {"port": 80, "on": true}, "keys": [{"name": "ide", "of": ["a", "b"]}, {"name": null}]}'
    assert read(text, "a.json").text.split("\n\n") == [
        "v: 1",
        "server.port: 80\nserver.on: true",
        "keys[0].name: ide\nkeys[0].of: a, b",
        "keys[1].name: null",
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", "[" * 200 + "]" * 200, "nested deeper"),
        ("a.jsonl", '{"a": 1}\n\nno', "line 3 of it is not valid JSON"),
    ],
)
def test_broken_json_is_refused(name: str, text: str, says: str) -> None:
    with pytest.raises(Unreadable, match=says):
        read(text, name)


def test_a_line_with_a_text_is_a_section_and_others_are_records() -> None:
    lines = '{"id": "k1", "title": "Keys", "text": "Keys turn.\\n\\nMonthly."}\n{"id": 7, "text": "Locks."}\n{"a": 1}\n'
    chunks = split(read(lines, "facts.jsonl"), Limits(60, 0, 512), estimate)
    assert [(chunk.text, chunk.heading, chunk.context) for chunk in chunks] == [
        ("Keys turn.\n\nMonthly.", ("Keys",), "facts > Keys"),
        ("Locks.", ("7",), "facts > 7"),
        ("a: 1", (), "facts"),
    ]
