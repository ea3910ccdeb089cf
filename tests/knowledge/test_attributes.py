"""Attributes that nobody declared: their bounds, how they are kept and compared, and how a collection changes them."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.knowledge import ChunkSpec, CollectionSpec
from server.errors import InvalidValue
from server.knowledge import Collection, Document, parse_filter
from server.knowledge.attributes import MAX_KEY, MAX_TEXT, check, read, written
from server.knowledge.document import AttributeValue, Unreadable
from server.knowledge.filter import to_sql
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_TEXT)
_values = _texts | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300)
_keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_KEY)
_attributes = st.dictionaries(_keys, _values, max_size=16)


def document(name: str, **attributes: AttributeValue) -> Document:
    text = f"The file {name} is about animals."
    return Document(id=name, uri=name, filename=f"{name}.md", text=text, title="Animals", attributes=attributes)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    spec = CollectionSpec(embed="embed", chunk=ChunkSpec(tokens=60, overlap=10))
    return Collection("open", spec, HashEmbedder(), tmp_path / "data", undeclared=True)


async def names(collection: Collection, where: Any) -> list[str]:
    found = await collection.search("animals", k=100, filters=parse_filter(where))
    return sorted(hit.document_id for hit in found.hits)


@given(_attributes)
def test_any_attributes_come_back_as_they_were(attributes: dict[str, AttributeValue]) -> None:
    check(attributes, None)
    back = read(written(attributes, None), None)
    assert back == attributes
    assert {key: type(value) for key, value in back.items()} == {key: type(value) for key, value in attributes.items()}


def test_a_column_of_floats_takes_whole_numbers_of_any_size() -> None:
    check({"score": 2**63 - 1}, {"score": "float"})
    [value] = written({"score": 2**63 - 1}, {"score": "float"}).values()
    assert isinstance(value, float) and value == 2**63


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({str(n): n for n in range(17)}, "at most 16 attributes"),
        ({"": 1}, "name is valid text"),
        ({"k" * 65: 1}, "name is valid text"),
        ({"\ud800": 1}, "name is valid text"),
        ({"k": "x" * 513}, "at most 512 characters"),
        ({"k": "\udfff"}, "valid text"),
        ({"k": float("nan")}, "not a finite number"),
        ({"k": float("inf")}, "not a finite number"),
    ],
)
def test_attributes_beyond_openais_bounds_are_refused(attributes: dict[str, AttributeValue], said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        check(attributes, None)


@pytest.mark.parametrize(
    ("where", "sql"),
    [
        ({"type": "eq", "key": "a", "value": "x"}, "(json_get_string(attributes, 's:a') = 'x')"),
        ({"type": "gt", "key": "a", "value": 2}, "(json_get_float(attributes, 'n:a') > 2.0)"),
        ({"type": "eq", "key": "a'b", "value": True}, "(json_get_bool(attributes, 'b:a''b') = true)"),
        (
            {"type": "eq", "key": "title", "value": "x"},
            "(coalesce(json_get_string(attributes, 's:title'), `title`) = 'x')",
        ),
        (
            {"type": "in", "key": "a", "value": ["x", 1, "y"]},
            "((json_get_float(attributes, 'n:a') IN (1.0)) OR (json_get_string(attributes, 's:a') IN ('x', 'y')))",
        ),
    ],
)
def test_the_value_says_which_type_is_compared(where: Any, sql: str) -> None:
    assert to_sql(parse_filter(where), None) == sql


@pytest.mark.parametrize(
    "where",
    [
        {"type": "lt", "key": "a", "value": True},
        {"type": "eq", "key": "a", "value": ["x"]},
        {"type": "in", "key": "a", "value": []},
        {"type": "in", "key": "a", "value": "x"},
        {"type": "eq", "key": "\ud800", "value": "x"},
        {"type": "eq", "key": "a", "value": 1e309},
    ],
)
def test_a_comparison_without_a_meaning_is_refused(where: Any) -> None:
    with pytest.raises(InvalidValue):
        to_sql(parse_filter(where), None)


async def test_documents_are_found_by_attributes_of_every_kind_and_by_odd_keys(collection: Collection) -> None:
    odd = {"a.b": 1, "$.a": 2, "a[0]": 3, 'q"q': 4, "новый": 5, "line\nbreak": 6}
    async with collection:
        await collection.upsert(
            [
                document("one", n=1, s="1", b=True),
                document("two", n=2.5, s="x"),
                document("odd", **odd),
                document("none"),
            ]
        )
        assert await names(collection, {"type": "eq", "key": "n", "value": 1}) == ["one"]
        assert await names(collection, {"type": "eq", "key": "s", "value": "1"}) == ["one"]
        assert await names(collection, {"type": "eq", "key": "b", "value": True}) == ["one"]
        assert await names(collection, {"type": "gt", "key": "n", "value": 1}) == ["two"]
        assert await names(collection, {"type": "ne", "key": "s", "value": "x"}) == ["none", "odd", "one"]
        for key, value in odd.items():
            assert await names(collection, {"type": "eq", "key": key, "value": value}) == ["odd"], key


async def test_attributes_are_set_and_documents_listed_read_and_deleted(collection: Collection) -> None:
    async with collection:
        await collection.upsert([document("one", n=1), document("two")])
        embedded = collection._embedder.inputs  # type: ignore[attr-defined]  # the fake counts
        await collection.set_attributes("one", {"n": 2, "s": "x"})
        assert collection._embedder.inputs == embedded  # type: ignore[attr-defined]
        one, two = await collection.documents()
        assert (one.id, one.filename, one.title, one.attributes) == ("one", "one.md", "Animals", {"n": 2, "s": "x"})
        assert (two.id, two.attributes) == ("two", {})
        held = await collection.document("one")
        assert held is not None
        assert (held.chunks, held.bytes, held.document.attributes) == (1, one.bytes, {"n": 2, "s": "x"})
        assert held.document.text == "The file one is about animals."
        report = await collection.delete(["one", "never there"])
        assert report.deleted == ("one",)
        assert [each.id for each in await collection.documents()] == ["two"]
        assert await collection.document("one") is None
        with pytest.raises(InvalidValue, match="not a finite number"):
            await collection.set_attributes("two", {"n": float("nan")})


async def test_one_ingest_may_be_cut_in_its_own_way(collection: Collection) -> None:
    long = "A sentence of some words. " * 40
    plain = Document(id="plain", uri="p", filename="p", text=long)
    async with collection:
        await collection.upsert([plain])
        await collection.upsert(
            [Document(id="small", uri="s", filename="s", text=long)], ChunkSpec(tokens=12, overlap=0)
        )
        whole, cut = await collection.document("plain"), await collection.document("small")
    assert whole is not None
    assert cut is not None
    assert cut.chunks > 2 * whole.chunks


async def test_undeclared_attributes_outlive_a_change_of_the_model(tmp_path: Path) -> None:
    spec = CollectionSpec(embed="embed", chunk=ChunkSpec(tokens=60, overlap=10))
    async with Collection("open", spec, HashEmbedder(), tmp_path, undeclared=True) as first:
        await first.upsert([document("one", n=1, s="x", b=True)])
    async with Collection("open", spec, HashEmbedder(salt="other"), tmp_path, undeclared=True) as second:
        await second.rebuild()
        (hit,) = (await second.search("animals")).hits
        assert hit.attributes == {"n": 1, "s": "x", "b": True}
        assert await names(second, {"type": "eq", "key": "n", "value": 1}) == ["one"]
