"""Calls as Mistral's models write them after `[TOOL_CALLS]`.

Two forms, from their chat templates and the mistral-common tokenizers: a list `[{"name": ..., "arguments": {...}}]`
(v3 and v7), and since v11 `[TOOL_CALLS]name[ARGS]{...}` for each call, in between also `[CALL_ID]id`.
"""

import re
from collections.abc import Mapping, Sequence

from server.models.stop import overlap
from server.models.tool_formats.lark import choice, json_calls, json_schema, literal, named, object_schema, quoted
from server.models.tool_formats.pieces import MOST_CALLS, ToolParser, ToolSpec
from server.models.tool_formats.stream import StreamParser

OPENING = "[TOOL_CALLS]"
CALL_ID = "[CALL_ID]"
ARGS = "[ARGS]"

_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,256}")
_HEAD = re.compile(r"([A-Za-z0-9_.:/-]{1,256})\s*(?:\[CALL_ID\]\s*[A-Za-z0-9_-]{0,64}\s*)?(?:\[ARGS\]\s*)?(?=\{)")
_LONGEST_HEAD = 400


class Mistral:
    """`args` chooses the form with `[ARGS]` for grammars; a parser reads either."""

    def __init__(self, *, args: bool) -> None:
        self.name = "mistral-args" if args else "mistral"
        self.markers: tuple[str, ...] = (OPENING, CALL_ID, ARGS) if args else (OPENING,)
        self._args = args

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ToolParser:
        return _Parser()

    def grammar(self, tools: Sequence[ToolSpec], *, many: bool, special: Mapping[str, int] | None = None) -> str:
        if self._args:
            calls = (_named_call(tool, special) for tool in named(tools))
            return "\n".join([f"start: call{{1,{MOST_CALLS if many else 1}}}", choice("call", calls)]) + "\n"
        more = f"({quoted(', ')} object){{0,{MOST_CALLS - 1}}} " if many else ""
        start = f'start: {literal(OPENING, special)} " "? {quoted("[")} object {more}{quoted("]")}'
        return f"{start}\n{json_calls(tools, 'arguments')}\n"


def _named_call(tool: ToolSpec, special: Mapping[str, int] | None) -> str:
    return f"{literal(OPENING + tool.name + ARGS, special)} {json_schema(object_schema(tool.parameters))}"


class _Parser(StreamParser):
    def content(self) -> bool:
        return self.content_until(OPENING, self._opened)

    def _opened(self) -> bool:
        if not self.skip_space():
            return self.ended and self.no_call()
        if self.rest[0] == "[":
            return self._list()
        if self.rest[0] == "{":
            return self.read_object(self._after, bare=False)
        return self._named()

    def _list(self) -> bool:
        inner = self.rest[1:].lstrip()
        if not inner and not self.ended:
            return False
        if not inner.startswith("{"):
            return self.no_call()
        self.opening += self.rest[: len(self.rest) - len(inner)]
        self.rest = inner
        return self.read_object(self._in_list, bare=False)

    def _in_list(self) -> bool:
        """After a call of a list: a comma and another one, or the bracket."""
        bare = self.rest.lstrip()
        inner = bare[1:].lstrip() if bare.startswith(",") else ""
        if inner.startswith("{"):
            self.rest = inner
            return self.read_object(self._in_list, bare=False)
        if not self.ended and (not bare or (bare[0] == "," and not inner)):
            return False
        if bare.startswith("]"):
            self.rest = bare[1:]
        self.state = self._after
        return True

    def _named(self) -> bool:
        head = _HEAD.match(self.rest)
        if head is None:
            name = _NAME.match(self.rest)
            hopeless = name is None or len(self.rest) > _LONGEST_HEAD or "{" in self.rest
            return self.no_call() if hopeless or self.ended else False
        self.opening += head.group()
        self.rest = self.rest[head.end() :]
        return self.read_object(self._after, bare=False, name=head.group(1))

    def _after(self) -> bool:
        self.rest = self.rest.lstrip()
        if not self.rest or (not self.ended and overlap(self.rest, OPENING) == len(self.rest)):
            return False
        self.state = self.content
        return True
