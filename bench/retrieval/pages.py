"""Yardsticks of HTML pages in several languages: every heading is a question, its section the document that answers.

Debian has such pages, the same ones in many languages: packages `debian-faq`, `debian-faq-de`, `debian-faq-zh-cn` (in
/usr/share/doc/debian/FAQ), `debian-reference-en`, `debian-reference-de`, `debian-reference-zh-cn` (in
/usr/share/debian-reference).
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.retrieval.yardstick import Yardstick
from bench.table import CannotRun
from server.knowledge.html_text import HtmlText

_LANGUAGE = re.compile(r"\.([a-z]{2}(?:-[a-z]{2})?)\.html$")
_SECTION = re.compile(r"^#{2,6} (?P<heading>.+)\n+(?P<text>(?:(?!^#{1,6} ).*\n?)+)", re.MULTILINE)
_NUMBER = re.compile(r"^[\d.]+\s+")
_LEAST = 80
"""Characters of a section that says something."""


def pages(folder: Path, most: int) -> list[Yardstick]:
    """One yardstick a language, and one with all languages in one collection; at most `most` questions each.

    Pages are told apart by names such as `page.de.html`. Raises CannotRun where there are none.
    """
    by_language: defaultdict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for file in sorted(folder.rglob("*.html")):
        if found := _LANGUAGE.search(file.name):
            by_language[found[1]] |= dict(_sections(file))
    if not by_language:
        raise CannotRun(f"No pages, nothing measured: {folder} holds no files such as page.de.html.")
    together = {key: section for sections in by_language.values() for key, section in sections.items()}
    found_in = [_yardstick(f"{folder.name}, {each}", sections) for each, sections in sorted(by_language.items())]
    if len(found_in) > 1:
        found_in.append(_yardstick(f"{folder.name}, all in one", together))
    return [each.evenly(most) for each in found_in]


def _sections(file: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    for n, match in enumerate(_SECTION.finditer(HtmlText(file.read_text(encoding="utf-8")).text)):
        text = match["text"].strip()
        if len(text) >= _LEAST:
            yield f"{file.name}#{n}", (_NUMBER.sub("", match["heading"]).strip(), text)


def _yardstick(name: str, sections: Mapping[str, tuple[str, str]]) -> Yardstick:
    """Headings that stand over several sections ask for none in particular."""
    headings = [heading for heading, _ in sections.values()]
    questions = [(heading, key) for key, (heading, _) in sections.items() if headings.count(heading) == 1]
    return Yardstick(name, {key: text for key, (_, text) in sections.items()}, questions)
