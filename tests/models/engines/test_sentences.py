"""The splitter: one row a behaviour; the quotable units of each text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.models.engines.reader.sentences import split

_TABLE: dict[str, tuple[str, list[str]]] = {
    "sentences": ("One is here. Two is there! Three?", ["One is here.", "Two is there!", "Three?"]),
    "a line break inside a sentence": ("It goes\non. Then ends.", ["It goes\non.", "Then ends."]),
    "paragraphs end sentences": ("No point here\n\nNext one.", ["No point here", "Next one."]),
    "abbreviations": (
        "Dr. Smith, e.g. from St. Ives, met J. K. Low in Jan. 1999. He left.",
        ["Dr. Smith, e.g. from St. Ives, met J. K. Low in Jan. 1999.", "He left."],
    ),
    "decimals and versions": ("Pi is 3.14. Use 2.0.1 now.", ["Pi is 3.14.", "Use 2.0.1 now."]),
    "addresses": ("See https://a.example/x.html?q=1. Then go.", ["See https://a.example/x.html?q=1.", "Then go."]),
    "file names": ("Edit recipe.yaml first. Save.", ["Edit recipe.yaml first.", "Save."]),
    "a small letter goes on": ("The U.S. army marched. Why?", ["The U.S. army marched.", "Why?"]),
    "closing quotation marks": ('He said "Go." She went.', ['He said "Go."', "She went."]),
    "closing brackets": ("It works (mostly.) Yes it does.", ["It works (mostly.)", "Yes it does."]),
    "footnote marks": ("It was so.[12] Then not.", ["It was so.[12]", "Then not."]),
    "an ellipsis": ("Wait… Now go.", ["Wait…", "Now go."]),
    "ideographic full stops": ("今日は雨。明日は晴れ。", ["今日は雨。", "明日は晴れ。"]),
    "list items": ("Do this:\n- one. Two.\n- three\n1. four", ["Do this:", "- one. Two.", "- three", "1. four"]),
    "a list item over two lines": ("- one\n  goes on\n- two", ["- one\n  goes on", "- two"]),
    "headings are not quoted": ("# Title here\nText one.\n## Sub\nText two.", ["Text one.", "Text two."]),
    "underlined headings are not quoted": ("Title\n=====\nText.\n\nSub\n---\nMore.", ["Text.", "More."]),
    "a heading under prose": ("Text.\nTitle\n-----\nMore.", ["Text.", "More."]),
    "rules are not quoted": ("One.\n\n---\n\nTwo.", ["One.", "Two."]),
    "table rows": ("| a | b |\n|---|---|\n| 1. x | 2 |", ["| a | b |", "| 1. x | 2 |"]),
    "a code block is one unit": (
        "Run:\n```sh\n# not a title\nls. Now.\n\n- x\n```\nDone.",
        ["Run:", "```sh\n# not a title\nls. Now.\n\n- x\n```", "Done."],
    ),
    "an open code block runs to the end": ("```\na. B\n\nc", ["```\na. B\n\nc"]),
    "white space": ("  \n\n\t ", []),
    "nothing": ("", []),
}


@pytest.mark.parametrize(("text", "units"), _TABLE.values(), ids=_TABLE.keys())
def test_text_is_split_into_quotable_units(text: str, units: list[str]) -> None:
    assert [text[unit.start : unit.end] for unit in split(text) if unit.quotable] == units


@given(st.text(alphabet="aB1 .!?\n#-|`=*)\"'”:[]é。", max_size=80))
def test_units_stand_in_order_and_cover_all_but_white_space(text: str) -> None:
    units = split(text)
    assert all(unit.start < unit.end for unit in units)
    assert all(one.end <= two.start for one, two in pairwise(units))
    assert "".join("".join(text[unit.start : unit.end].split()) for unit in units) == "".join(text.split())
