"""A page of HTML as Markdown: its main text where that can be told, else all of it."""

import logging

from server.knowledge.extract.reading import Reading
from server.knowledge.html_text import HtmlText

# Beyond these trafilatura recurses too deep, or takes minutes (its time grows with the square of the elements); the
# flat reader takes over.
_TREE_DEPTH = 200
_TREE_ELEMENTS = 20_000
_TREE_CHARACTERS = 8 * 1024 * 1024


def read_html(source: str) -> Reading:
    """The page's text and title. Navigation and footers are dropped where the page lets us tell."""
    flat = HtmlText(source)
    fits_a_tree = flat.depth <= _TREE_DEPTH and flat.elements <= _TREE_ELEMENTS and len(source) <= _TREE_CHARACTERS
    text = (_main_text(source) if fits_a_tree else "") or flat.text
    return Reading(text=text, title=flat.title, markdown=True)


def _main_text(source: str) -> str:
    import trafilatura

    # It reports every page without a main text as an error; here that is an ordinary answer.
    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)
    try:
        found = trafilatura.extract(source, output_format="markdown", include_tables=True, include_comments=False)
    except (ValueError, RecursionError, AssertionError):
        return ""  # what lxml raises on trees it cannot build or walk
    return found or ""
