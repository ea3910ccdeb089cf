"""DOCX becomes Markdown, or says why it does not."""

import zipfile
from io import BytesIO

import pytest

from server.knowledge.document import Document, Unreadable, Unsupported
from server.knowledge.extract import read_document
from tests.knowledge.office import docx, paragraph, xml

STYLES = xml(
    "styles",
    '<w:style w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    '<w:style w:styleId="Ours"><w:name w:val="our own"/><w:basedOn w:val="H2"/></w:style>'
    '<w:style w:styleId="H2"><w:name w:val="Heading 2"/></w:style>'
    '<w:style w:styleId="Deep"><w:name w:val="deep"/><w:pPr><w:outlineLvl w:val="2"/></w:pPr></w:style>'
    '<w:style w:styleId="A"><w:name w:val="a"/><w:basedOn w:val="B"/></w:style>'
    '<w:style w:styleId="B"><w:name w:val="b"/><w:basedOn w:val="A"/></w:style>',
)
NUMBERING = xml(
    "numbering",
    '<w:abstractNum w:abstractNumId="1"><w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/></w:lvl></w:abstractNum>'
    '<w:num w:numId="7"><w:abstractNumId w:val="1"/></w:num>',
)
NOTES = xml("footnotes", '<w:footnote w:id="2"><w:p><w:r><w:t>As measured.</w:t></w:r></w:p></w:footnote>')
PARTS = {"word/styles.xml": STYLES, "word/numbering.xml": NUMBERING, "word/footnotes.xml": NOTES}


def read(body: str, parts: dict[str, str | bytes] | None = None, title: str = "") -> Document:
    return read_document(docx(body, PARTS | (parts or {}), title), "id", "a.docx", {})


def item(text: str, number: int, level: int = 0) -> str:
    listed = f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{number}"/></w:numPr>'
    return paragraph(text, properties=listed)


def row(*cells: str) -> str:
    return "<w:tr>" + "".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in cells) + "</w:tr>"


def test_headings_are_told_by_their_style_in_any_language() -> None:
    body = "".join(paragraph(style, style) for style in ("berschrift1", "Ours", "Deep", "A", "unknown"))
    assert read(body).text == "# berschrift1\n\n## Ours\n\n### Deep\n\nA\n\nunknown"


def test_the_title_is_the_files_own_else_its_first_heading() -> None:
    body = paragraph("Head", "H2")
    assert read(body, title="The plan").title == "The plan"
    assert read(body).title == "Head"
    assert read(paragraph("x")).title == "a"


def test_lists_are_items_and_numbered_ones_count() -> None:
    body = item("one", 7) + item("two", 7) + item("deeper", 9, 1) + paragraph("end") + item("three", 7)
    assert read(body).text == "1. one\n2. two\n  - deeper\n\nend\n\n3. three"


def test_tables_are_markdown_tables() -> None:
    table = f"<w:tbl>{row('key', 'age|days')}{row('ide')}</w:tbl>"
    assert read(table).text == "| key | age\\|days |\n| --- | --- |\n| ide |  |"


def test_the_text_is_what_a_reader_sees() -> None:
    body = (
        "<w:p><w:r><w:t>It is </w:t></w:r><w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:hyperlink><w:r><w:t>, linked</w:t></w:r></w:hyperlink>"
        '<w:r><w:footnoteReference w:id="2"/><w:tab/><w:t>end</w:t></w:r></w:p>'
        f"<w:sdt><w:sdtContent>{paragraph('In a control.')}</w:sdtContent></w:sdt>"
    )
    assert read(body).text == "It is new, linked[^2]\tend\n\nIn a control.\n\n[^2]: As measured."


@pytest.mark.parametrize("text", ["# sharp", "```", "---", "=="])
def test_words_that_look_like_markdown_stay_words(text: str) -> None:
    assert read(paragraph(text)).text == f"\\{text}"


def test_macros_and_pictures_are_left_out() -> None:
    found = read(paragraph("Words."), {"word/vbaProject.bin": b"Sub AutoOpen()", "word/media/a.png": b"\x89PNG"})
    assert found.text == "Words."


def bomb(entries: int, size: int) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(entries):
            archive.writestr("word/document.xml" if n == 0 else f"word/{n}.xml", b" " * size)
    return file.getvalue()


ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">'
    '<!ENTITY f SYSTEM "/etc/passwd">]>'
    '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r><w:t>'
    "&b;&f;</w:t></w:r></w:p></w:body></w:document>"
)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (bomb(1, 4 * 1024**2), "ZIP bomb"),
        (bomb(20_000, 0), "ZIP bomb"),
        (docx(paragraph("x"))[:-40], "broken"),
        (docx("", {"word/document.xml": "<w:document"}), "broken"),
        (docx("", {"word/document.xml": ENTITIES}), "declares a document type"),
        (docx("", {"word/document.xml": xml("document", "")}), "without a body"),
        (b"just words", "broken DOCX, or none"),
        (b"\xd0\xcf\x11\xe0" + bytes(100), "encrypted"),
    ],
    ids=["ratio", "entries", "cut", "XML", "entities", "no body", "no DOCX", "encrypted"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_cannot_be_read_is_refused_by_name(raw: bytes, says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read_document(raw, "id", "a.docx", {})
    assert says in str(refused.value)


def test_another_archive_is_unsupported() -> None:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    with pytest.raises(Unsupported, match="no DOCX"):
        read_document(file.getvalue(), "id", "a.xlsx", {})
