"""PDF becomes text with pages and headings, or says why it does not."""

from pathlib import Path

import pytest

from server.knowledge.counting import estimate
from server.knowledge.document import Document, Unreadable
from server.knowledge.extract import extract, read_document
from server.knowledge.splitter import Limits, split
from tests.knowledge.office import pdf

LIMITS = Limits(20, 5, 512)


def read(raw: bytes, name: str = "a.pdf") -> Document:
    return read_document(raw, "id", name, {})


def test_text_and_title_come_from_the_pages_in_order() -> None:
    found = read(pdf([["One two.", "Three."], ["Four."]], title="Of numbers"))
    assert found.text == "One two.\nThree.\n\nFour."
    assert (found.title, found.pages) == ("Of numbers", (0, 17))
    assert [found.text[start:] for start in found.pages] == [found.text, "Four."]


def test_without_a_title_the_name_is_one() -> None:
    assert read(pdf([["x"]]), "plan.pdf").title == "plan"


def test_a_chunk_knows_the_page_it_begins_on() -> None:
    words = "Some words that make this line as long as a chunk may be at all, and no longer."
    found = read(pdf([[words], [], [words], ["Short."]]))
    chunks = split(found, LIMITS, estimate)
    assert [(chunk.page, chunk.text[:5]) for chunk in chunks] == [(1, "Some "), (3, "Some "), (4, "Short")]
    assert all(found.text[chunk.start : chunk.end] == chunk.text for chunk in chunks)


def test_a_word_cut_at_a_line_end_is_joined_and_a_real_hyphen_stays() -> None:
    found = read(pdf([["The exam-", "ple is well-known, as ISO-", "9001 is - or the Post-", "War -", "it was."]]))
    assert found.text == "The example is well-known, as ISO-9001 is - or the Post-War -\nit was."


def test_a_sentence_goes_on_over_a_page_break() -> None:
    assert read(pdf([["A sentence that"], ["goes on."]])).text == "A sentence that\ngoes on."


def test_what_stands_on_every_page_is_dropped_and_what_does_not_is_kept() -> None:
    pages = [[f"Handbook, page {n}", f"Text {letter}.", "Copyright", str(n)] for n, letter in enumerate("abcd", 1)]
    assert read(pdf(pages)).text == "Text a.\n\nText b.\n\nText c.\n\nText d."
    assert read(pdf(pages[:2])).text.count("Copyright") == 2  # of two pages nobody can tell


def test_bookmarks_are_the_headings() -> None:
    pages = [["Start", "Words here."], ["1.2 Deeper  down", "More of them."], ["Last ones."]]
    found = read(pdf(pages, [("Start", 0), ("Deeper down", 1), ("Not in the text", 2)]))
    chunks = split(found, LIMITS, estimate)
    assert [chunk.heading for chunk in chunks] == [("Start",), ("Deeper down",), ("Not in the text",)]
    assert [chunk.text.split("\n")[0] for chunk in chunks] == ["Start", "1.2 Deeper down", "Last ones."]
    assert chunks[2].context.endswith("Not in the text")  # what the text does not show is said before it
    assert not chunks[0].context.endswith("Start")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (pdf([["x"]], locked=True), "it is encrypted"),
        (pdf([["x"]])[:150], "broken"),
        (b"%PDF-1.7\n" + b"no objects " * 100, "broken"),
        (pdf([[], []]), "no text in it, only pictures"),
        (b"just words", "broken PDF, or none"),
    ],
    ids=["locked", "cut", "empty", "scan", "no PDF"],
)
def test_what_cannot_be_read_is_refused_by_name(raw: bytes, says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(raw)
    assert says in str(refused.value)


def test_its_first_bytes_tell_a_pdf_whatever_its_name_says(tmp_path: Path) -> None:
    path = tmp_path.resolve() / "notes.txt"
    path.write_bytes(pdf([["Found."]]))
    assert extract(path, "notes.txt", "test", {}).text == "Found."
