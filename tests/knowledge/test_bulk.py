"""Documents in JSON Lines: taken in as they come, and each refused line told with its reason."""

import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from server.knowledge import bring_lines, bulk
from server.knowledge.collection import Collection
from tests.knowledge.conftest import Make
from tests.knowledge.hashing import HashEmbedder

pytestmark = pytest.mark.anyio


async def cut(raw: bytes, size: int) -> AsyncIterator[bytes]:
    """As a connection delivers it: in pieces that know nothing of lines."""
    for at in range(0, len(raw), size):
        yield raw[at : at + size]


def line(each: str, text: str | None, **more: object) -> bytes:
    return json.dumps({"id": each, "text": text, **more}).encode() + b"\n"


async def texts(of: Collection) -> dict[str, str]:
    held = [await of.document(each.id) for each in await of.documents()]
    return {each.document.id: each.document.text for each in held if each is not None}


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_lines_count_in_their_order_wherever_they_are_cut(make: Make, size: int) -> None:
    raw = b"\xef\xbb\xbf" + line("a", "Apples.") + b"\r\n" + line("b", "Bears.") + line("a", "Ants.") + line("b", None)
    async with make(glob=None) as of:
        report = await bring_lines(of, cut(raw + line("gone", None) + line("c", "Cats.").rstrip(), size))
        assert (report.written, report.unchanged, report.deleted, report.refused) == (4, 1, 1, 0)
        assert await texts(of) == {"a": "Ants.", "c": "Cats."}
        again = await bring_lines(of, cut(line("c", "Cats.") + line("a", "Ants."), size))
        assert (again.written, again.unchanged) == (0, 2)


async def test_a_refused_line_is_told_with_its_number_and_the_rest_is_taken(make: Make) -> None:
    lines = [
        line("good", "Apples."),
        b"no json\n",
        line("", "no id"),
        b'{"id": "x"}\n',
        line("x", "T", vector=[1.0]),
        line("x", "T", version=2),
        line("x", "T", attributes={"year": "soon"}),
        line("x", "T", attributes={"colour": "red"}),
        line("x", " "),
        b'{"id": "x", "text": "\xff"}\n',
        line("fine", "Bears.", attributes={"year": 2026}),
    ]
    async with make(glob=None, attributes={"year": "int"}) as of:
        report = await bring_lines(of, cut(b"".join(lines), 1000))
        assert (report.written, report.refused) == (2, 9)
        assert [each.line for each in report.told] == list(range(2, 11))
        reasons = " | ".join(each.reason for each in report.told)
        for said in ("not JSON", "1 to 512", "`text` is missing", "vector", "version", "year", "colour", "no text"):
            assert said in reasons, said
        assert set(await texts(of)) == {"good", "fine"}


async def test_a_vector_that_is_given_is_kept_and_nothing_is_embedded(make: Make) -> None:
    embedder = HashEmbedder()
    given = np.random.default_rng(2).normal(size=embedder.card.dimension).astype(np.float32)
    text = "# Apples\n\n" + "They are red. " * 200  # as one of several chunks, were it cut
    line_of = partial(line, "a", text, title="Fruit")
    async with make(embedder, glob=None) as of:
        begun = embedder.inputs
        report = await bring_lines(of, cut(line_of(vector=given.tolist()) + line("b", "Bears."), 4096))
        assert (report.written, report.refused) == (2, 0)
        assert embedder.inputs == begun + 1, "the other one alone was embedded"
        found = await of.search("red", mode="text")
        assert [(hit.document_id, hit.text) for hit in found.hits] == [("a", text.strip())]
        vectors = await of.vectors([found.hits[0].id])
        assert np.allclose(vectors[found.hits[0].id], given)
        assert found.hits[0].token_count > 400
        again = await bring_lines(of, cut(line_of(vector=given.tolist()), 4096))
        assert again.unchanged == 1
        other = await bring_lines(of, cut(line_of(vector=(-given).tolist()), 4096))
        assert other.written == 1, "another vector of the same text is a change"
        assert np.allclose((await of.vectors([found.hits[0].id]))[found.hits[0].id], -given)


async def test_vectors_that_cannot_be_kept_are_refused_by_name_and_what_is_there_stays(make: Make) -> None:
    size = HashEmbedder().card.dimension
    wrong: dict[str, Any] = {
        "numbers, those of this collection": [1.0] * (size - 1),
        "not finite": [1.0] * (size - 1) + [1e300],
        "no direction": [0.0] * size,
        "Expected `float`": ["1"] * size,
    }
    raw = line("a", "Apples.", vector=[1.0] * size)
    raw += b"".join(line("a", "Apples again.", vector=vector) for vector in wrong.values())
    raw += b'{"id": "a", "text": "Apples again.", "vector": [NaN]}\n' + line("b", "Bears.")
    async with make(glob=None) as of:
        report = await bring_lines(of, cut(raw, 1000))
        assert (report.written, report.refused) == (2, 5)
        for told, said in zip(report.told, [*wrong, "not JSON"], strict=True):
            assert said in told.reason
        assert await texts(of) == {"a": "Apples.", "b": "Bears."}


async def test_a_line_that_never_ends_is_not_held_and_the_next_is_taken(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_LONGEST_LINE", 1000)
    raw = line("a", "x" * 5000) + line("b", "Bears.") + line("c", "y" * 5000).rstrip()
    async with make(glob=None) as of:
        report = await bring_lines(of, cut(raw, 64))
        assert [(each.line, "longer than" in each.reason) for each in report.told] == [(1, True), (3, True)]
        assert set(await texts(of)) == {"b"}


async def test_of_very_many_refused_lines_the_first_are_told_and_all_are_counted(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_MOST_TOLD", 3)
    async with make(glob=None) as of:
        report = await bring_lines(of, cut(b"no\n" * 2000, 4096))
    assert (report.refused, [each.line for each in report.told]) == (2000, [1, 2, 3])


async def test_a_document_of_the_recipe_is_not_changed_by_a_line(make: Make, docs: object) -> None:
    async with make(glob=None) as of:
        from server.knowledge.document import Document

        await of.apply(
            "kafka:changes", [Document(id="a", uri="a", filename="a", text="Apples.", source="kafka:changes")], []
        )
        report = await bring_lines(of, cut(line("a", "Ants.") + line("b", "Bears."), 100))
        assert [(each.line, each.id) for each in report.told] == [(1, "a")]
        assert "kafka:changes" in report.told[0].reason
        assert await texts(of) == {"a": "Apples.", "b": "Bears."}
