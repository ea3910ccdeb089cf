"""Files become documents, or say why they do not."""

from pathlib import Path

import pytest

from server.knowledge.document import Document, Unreadable
from server.knowledge.extract import MAX_BYTES, extract, fingerprint
from server.knowledge.html_text import HtmlText

TYPES = {"team": "string", "year": "int", "weight": "float", "draft": "bool"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path.resolve()


def read(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return extract(path, path.name, "test", TYPES)


def test_markdown_keeps_its_text_and_gives_title_and_declared_attributes(folder: Path) -> None:
    text = "---\ntitle: The page\nteam: ops\nyear: 2024\nweight: 3\ndraft: false\nother: [1]\n---\n# Head\n\nBody.\n"
    found = read(folder / "a.md", text)
    assert found.text == text
    assert found.text[found.body :] == "# Head\n\nBody.\n"
    assert found.title == "The page"
    assert found.attributes == {"team": "ops", "year": 2024, "weight": 3.0, "draft": False}


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [("a.md", "# The *first* [head](x)\n", "The first head"), ("a.md", "no heading", "a"), ("b.txt", "# x", "b")],
)
def test_without_front_matter_the_first_heading_is_the_title(folder: Path, name: str, text: str, title: str) -> None:
    assert read(folder / name, text).title == title


def test_a_date_is_the_string_its_author_wrote(folder: Path) -> None:
    assert read(folder / "a.md", "---\nteam: 2026-11-24\n---\nx").attributes == {"team": "2026-11-24"}


@pytest.mark.parametrize(
    ("matter", "says"),
    [
        ("year: soon", "`year` should be a whole number"),
        ("year: true", "`year` should be a whole number"),
        ("year: 99999999999999999999", "64 bits"),
        ("team: 5", "`team` should be a string"),
        ("draft: maybe", "`draft` should be true or false"),
        ("weight: [1]", "`weight` should be a number"),
        ('team: "\\ud800"', "half a character"),
        ("a: b: c", "front matter is not valid YAML (line 2)"),
        ("a: !!python/object:os.system x", "not valid YAML"),
        ("a: " + "[" * 2000, "not valid YAML"),
        ("a: 2024-99-99", "not valid YAML"),
    ],
)
def test_wrong_front_matter_is_refused_in_words(folder: Path, matter: str, says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(folder / "a.md", f"---\n{matter}\n---\nbody")
    assert says in str(refused.value)


def test_a_rule_at_the_top_is_no_front_matter(folder: Path) -> None:
    found = read(folder / "a.md", "---\nJust prose between rules.\n---\nmore")
    assert (found.body, found.attributes) == (0, {})


@pytest.mark.parametrize(
    "raw",
    [b"\xef\xbb\xbfa\r\nb\rc", "a\r\nb\rc".encode("utf-16"), b"a\nb\nc"],
    ids=["utf-8 with a mark", "utf-16", "plain"],
)
def test_marks_and_line_ends_are_read_as_text(folder: Path, raw: bytes) -> None:
    assert read(folder / "a.txt", raw).text == "a\nb\nc"


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"caf\xe9", "not UTF-8 (byte 3); save it as UTF-8"),
        (b"\x7fELF\0\0", "binary"),
        (b"text " * 10_000 + b"\0", "binary"),
        ("a\0b".encode("utf-16"), "the character NUL"),
        (b"\xff\xfea", "not UTF-16"),
        (b"\xff\xfe\0\0a", "not UTF-32"),
        (b"%PDF-1.7 text", "broken PDF"),
        (b"PK\x03\x04 text", "broken Office file"),
        (b"\xd0\xcf\x11\xe0 text", "encrypted or old Office file"),
        (b"\x89PNG\r\n", "a picture"),
        (b"{\\rtf1 text}", "RTF"),
    ],
)
def test_what_is_not_text_is_refused_in_words(folder: Path, raw: bytes, says: str) -> None:
    with pytest.raises(Unreadable) as refused:
        read(folder / "a.txt", raw)
    assert says in str(refused.value)


def test_a_file_over_the_limit_is_refused_without_reading_it_whole(folder: Path) -> None:
    path = folder / "big.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(Unreadable, match="larger than 32 MiB"):
        fingerprint(path)


def test_folders_and_missing_files_are_refused(folder: Path) -> None:
    for path in (folder, folder / "missing"):
        with pytest.raises(Unreadable):
            extract(path, "x", "test", TYPES)


PAGE = """<html><head><title>Key  rotation</title><script>var secret = 1</script></head><body>
<nav><a href="/">Home</a><a href="/x">Elsewhere</a></nav>
<article><h1>Rotate keys</h1><p>Keys are rotated every month, which takes a minute and breaks nothing at all.</p>
<h2>How</h2><pre><code>hearth keys rotate</code></pre>
<table><tr><th>key</th><th>age</th></tr><tr><td>ide</td><td>30</td></tr></table></article>
<footer>Copyright nobody</footer></body></html>"""


def test_html_gives_its_main_text_as_markdown(folder: Path) -> None:
    found = read(folder / "a.html", PAGE)
    assert found.title == "Key rotation"
    assert "# Rotate keys" in found.text
    assert "hearth keys rotate" in found.text
    assert "| ide | 30 |" in found.text
    assert "Home" not in found.text
    assert "Copyright" not in found.text
    assert found.markdown


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>hi", "hi"),
        ("<h2>Top</h2>words<br>more", "## Top\n\nwords\nmore"),
        ("", ""),
        ("no markup &amp; one entity", "no markup & one entity"),
        ("<p>a</p><script>b</script><style>c</style>", "a"),
    ],
)
def test_a_page_without_a_main_text_gives_all_its_text(folder: Path, page: str, text: str) -> None:
    assert read(folder / "a.html", page).text == text


@pytest.mark.parametrize("tag", ["div", "table", "b", "p", "ul><li", "a"])
def test_hostile_nesting_is_read_flat(folder: Path, tag: str) -> None:
    found = read(folder / "a.html", f"<{tag}>" * 20_000 + "<p>found</p>")
    assert found.text == "found"


@pytest.mark.parametrize(
    "page", ["<!--", "<![CDATA[", "<!doctype", "<a <b <c", "&#x110000;&#0;", "</div>" * 1000 + "x"]
)
def test_broken_markup_is_no_fault(folder: Path, page: str) -> None:
    read(folder / "a.html", page + "\n" + page)


def test_depth_is_measured_and_void_tags_do_not_add_to_it() -> None:
    assert HtmlText("<div><b><br><img>x</b></div><p>y<p>z<p>").depth == 2


@pytest.mark.parametrize(
    "part", ["<!--", "<a <a ", "<a b='", "<![CDATA[", "</", "<?", "&#", "<script>", "<", "< ", "&"]
)
def test_hostile_markup_is_read_in_one_pass(part: str) -> None:
    """A parser that goes back over it would not end within hours."""
    assert len(HtmlText(part * (1_000_000 // len(part))).text) <= 2_000_000


@pytest.mark.parametrize("part", ["<table><tr><td>x</table>", "<b>x</b>", "<br>x", "<td>x"])
def test_a_page_of_very_many_elements_is_read_flat(folder: Path, part: str) -> None:
    assert read(folder / "a.html", part * 100_000).text.count("x") == 100_000


def test_markup_is_told_from_text() -> None:
    page = "<TITLE>A &amp; B</TITLE>1 < 2 <!-- no --><ScRiPt>x = '<p>'</sCrIpT ><p>a<3</p><!doctype x>&lt;b&gt;</x"
    found = HtmlText(page)
    assert found.title == "A & B"
    assert found.text == "1 < 2\n\na<3\n\n<b>"


def test_a_heading_over_several_lines_of_a_page_is_one_line() -> None:
    found = HtmlText("<h2>How to\n rotate<br>keys</h2><p>At\nnight.</p><h3>Never\nclosed<p>It\nwraps.")
    assert found.text == "## How to rotate keys\n\nAt\nnight.\n\n### Never closed\n\nIt\nwraps."
