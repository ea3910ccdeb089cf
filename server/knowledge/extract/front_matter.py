"""What stands before a text: YAML between lines of dashes, and SPDX tags in the first lines."""

import re

import yaml

from server.knowledge.document import Unreadable

_MAX_FRONT_MATTER = 64 * 1024
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n]{1,500})")
_SPDX_LINES = 20
_SPDX_CHARACTERS = 8192
_COMMENT_END = re.compile(r"\s*(?:\*/|-->|--%>|\*\)|#}|\"|'|<).*$")


def front_matter(text: str) -> tuple[dict[str, object], int]:
    """The YAML mapping between lines of `---` at the top, and where the body begins."""
    found = _FRONT_MATTER.match(text, 0, _MAX_FRONT_MATTER)
    if found is None:
        return {}, 0
    try:
        # The loader in Python: a document nested too deep raises here and would end the process in the C one.
        value = yaml.load(found[1], Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 2})"
        raise Unreadable(f"its front matter is not valid YAML{place}") from error
    if value is None:
        return {}, found.end()
    if not isinstance(value, dict):
        return {}, 0  # a rule, then prose: not front matter
    return {str(key): each for key, each in value.items()}, found.end()


def spdx_licence(text: str) -> str | None:
    """The licence that a tag in the first lines names, whatever comment it stands in."""
    head = "\n".join(text[:_SPDX_CHARACTERS].split("\n")[:_SPDX_LINES])
    found = _SPDX.search(head)
    return (_COMMENT_END.sub("", found[1]).strip() or None) if found else None
