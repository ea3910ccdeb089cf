"""Pages in several languages as yardsticks: which headings ask, and for which section."""

from pathlib import Path

import pytest

from bench.retrieval.pages import pages
from bench.table import CannotRun

PAGE = """<html><body><h1>1. {title}</h1><p>Before the first section.</p>
<h2>1.1. {one}
over two lines</h2><p>{text}</p><h2>1.2. {two}</h2><p>Too short.</p>
<h2>Notes</h2><p>{text}</p><h2>Notes</h2><p>{text}</p></body></html>"""


def test_each_language_is_a_yardstick_and_all_together_are_one(tmp_path: Path) -> None:
    for language in ("de", "zh-cn"):
        told = {"title": "T", "one": f"What is {language}?", "two": "What else?", "text": f"{language} word " * 20}
        (tmp_path / f"page.{language}.html").write_text(PAGE.format_map(told), encoding="utf-8")
    (tmp_path / "index.html").write_text("<h2>In no language</h2>", encoding="utf-8")
    found = {each.name.partition(", ")[2]: each for each in pages(tmp_path, 300)}
    assert list(found) == ["de", "zh-cn", "all in one"]
    (question,) = found["de"].questions
    assert question[0] == "What is de? over two lines"
    assert found["de"].texts[question[1]].startswith("de word de word")
    assert "What is" not in "".join(found["de"].texts.values())
    assert len(found["all in one"].texts) == 6
    assert len(found["all in one"].questions) == 2
    assert [len(each.questions) for each in pages(tmp_path, 1)] == [1, 1, 1]


def test_a_folder_without_pages_is_told(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"page\.de\.html"):
        pages(tmp_path, 10)
