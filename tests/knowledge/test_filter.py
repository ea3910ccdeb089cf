"""The filter grammar: what it means in SQL, what it refuses, and that no value leaves its quotes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import InvalidValue
from server.knowledge.filter import MAX_DEPTH, parse_filter, to_sql

ATTRIBUTES = {"team": "string", "year": "int", "weight": "float", "draft": "bool", "title": "string"}


def sql(value: Any) -> str:
    return to_sql(parse_filter(value), ATTRIBUTES)


def compare(kind: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (compare("eq", "team", "ops"), "(`attribute_team` = 'ops')"),
        (compare("ne", "team", "ops"), "(`attribute_team` IS NULL OR `attribute_team` <> 'ops')"),
        (compare("gt", "year", 2024), "(`attribute_year` > 2024)"),
        (compare("gte", "year", 2024.0), "(`attribute_year` >= 2024)"),
        (compare("lt", "weight", -1), "(`attribute_weight` < -1.0)"),
        (compare("lte", "weight", 1e-9), "(`attribute_weight` <= 1e-09)"),
        (compare("eq", "draft", True), "(`attribute_draft` = true)"),
        (compare("in", "year", [1, 2]), "(`attribute_year` IN (1, 2))"),
        (compare("nin", "team", ["a"]), "(`attribute_team` IS NULL OR `attribute_team` NOT IN ('a'))"),
        (compare("eq", "filename", "a.md"), "(`filename` = 'a.md')"),
        (compare("eq", "title", "x"), "(`attribute_title` = 'x')"),
        (compare("eq", "team", "' OR '1'='1"), "(`attribute_team` = ''' OR ''1''=''1')"),
        (compare("eq", "team", "x'; DROP TABLE chunks; --"), "(`attribute_team` = 'x''; DROP TABLE chunks; --')"),
        (compare("eq", "team", "\\'"), "(`attribute_team` = '\\''')"),
        (
            {
                "type": "or",
                "filters": [compare("eq", "year", 1), {"type": "and", "filters": [compare("eq", "year", 2)]}],
            },
            "((`attribute_year` = 1) OR ((`attribute_year` = 2)))",
        ),
    ],
)
def test_a_filter_becomes_sql(value: Any, expected: str) -> None:
    assert sql(value) == expected


def nested(depth: int) -> dict[str, Any]:
    value = compare("eq", "year", 1)
    for _ in range(depth):
        value = {"type": "and", "filters": [value]}
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (compare("eq", "tema", "x"), "did you mean `team`?"),
        (compare("eq", "`team` = 'x' OR 1=1 --", "x"), "unknown key"),
        (compare("eq", "text", "x"), "unknown key"),
        (compare("eq", "vector", "x"), "unknown key"),
        (compare("eq", "zzz", "x"), "this collection has"),
        (compare("eq", "team", 1), "should be a string"),
        (compare("eq", "year", "2024"), "should be a whole number"),
        (compare("eq", "year", 2024.5), "should be a whole number"),
        (compare("eq", "year", True), "should be a whole number"),
        (compare("eq", "year", 2**63), "64 bits"),
        (compare("eq", "year", 10**400), "finite"),
        (compare("gt", "weight", float("nan")), "finite"),
        (compare("gt", "weight", float("inf")), "finite"),
        (compare("eq", "weight", "heavy"), "should be a number"),
        (compare("gt", "draft", True), "has no order"),
        (compare("eq", "draft", 1), "true or false"),
        (compare("eq", "team", ["a"]), "lists go with"),
        (compare("in", "team", "a"), "should be a list"),
        (compare("in", "team", []), "should be a list"),
        (compare("in", "team", ["a"] * 2000), "should be a list"),
        (compare("in", "team", ["a", 1]), "should be a string"),
        (compare("eq", "team", "x" * 5000), "at most"),
        (compare("eq", "team", "\ud800"), "valid text"),
        ({"type": "and", "filters": []}, "at least one"),
        ({"type": "or", "filters": [compare("eq", "year", 1)] * 65}, "more than 64"),
        (nested(MAX_DEPTH), "nested more than"),
        (nested(100), "nested more than"),
        ({"type": "like", "key": "team", "value": "x"}, "like"),
        ({"type": "eq", "key": "team"}, "value"),
        ({"type": "eq", "key": "team", "value": "x", "sql": "1=1"}, "sql"),
        ({"type": "eq", "key": "team", "value": None}, "null"),
        ({}, "type"),
        ([], "object"),
    ],
)
def test_a_wrong_filter_is_refused_in_words(value: Any, says: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        sql(value)
    assert says in refused.value.message
    assert refused.value.param == "filters"


def test_nesting_past_the_interpreters_stack_is_refused() -> None:
    with pytest.raises(InvalidValue):
        parse_filter(nested(100_000))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_no_text_ends_its_own_literal(text: str) -> None:
    found = sql(compare("eq", "team", text))
    literal = found.removeprefix("(`attribute_team` = ").removesuffix(")")
    assert literal[0] == literal[-1] == "'"
    assert literal[1:-1].replace("''", "").count("'") == 0
    assert literal[1:-1].replace("''", "'") == text
