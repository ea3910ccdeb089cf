"""Calls that are the whole answer: a JSON object and nothing else, as Llama 3 writes them, and models without a format.

Llama 3.1 to 3.3 (their chat templates, and prompt_format.md of meta-llama/llama-models): the object is
`{"name": ..., "parameters": {...}}`, sometimes after `<|python_tag|>`.
"""

from collections.abc import Mapping, Sequence

import msgspec

from server.models.stop import overlap
from server.models.tool_formats.lark import json_calls, quoted
from server.models.tool_formats.pieces import MOST_CALLS, ToolParser, ToolSpec
from server.models.tool_formats.stream import StreamParser

PYTHON_TAG = "<|python_tag|>"


class Llama3:
    name = "llama3"
    markers = (PYTHON_TAG,)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ToolParser:
        return _Parser(PYTHON_TAG)

    def grammar(self, tools: Sequence[ToolSpec], *, many: bool, special: Mapping[str, int] | None = None) -> str:
        """One call even with `many`: these models' templates refuse a turn of several."""
        return f"start: object\n{json_calls(tools, 'parameters')}\n"


class Json:
    """For templates that know nothing of tools: the model is told of them by `instructions`."""

    name = "json"
    markers = ()

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ToolParser:
        return _Parser(None)

    def grammar(self, tools: Sequence[ToolSpec], *, many: bool, special: Mapping[str, int] | None = None) -> str:
        several = f"{quoted('[')} object ({quoted(', ')} object){{0,{MOST_CALLS - 1}}} {quoted(']')}"
        start = f"start: {several if many else 'object'}"
        return f"{start}\n{json_calls(tools, 'arguments')}\n"


def instructions(tools: Sequence[ToolSpec]) -> str:
    """What to tell a model whose template cannot show it the functions, as part of the system's turn."""
    listed = "\n".join(
        msgspec.json.encode(
            {"name": tool.name, "description": tool.description, "parameters": tool.parameters or {}}
        ).decode()
        for tool in tools
    )
    return (
        "You can call these functions, one JSON object a line:\n"
        f"{listed}\n"
        'To call one, answer with nothing but {"name": <its name>, "arguments": <an object that fits its parameters>}; '
        "to call several, with a JSON list of such objects."
    )


class _Parser(StreamParser):
    """`tag` may stand before a call, and then the call need not be the whole answer."""

    def __init__(self, tag: str | None) -> None:
        super().__init__(self._begin)
        self._tag = tag

    def content(self) -> bool:
        if self._tag is None:
            return super().content()
        return self.content_until(self._tag, self._tagged)

    def _begin(self) -> bool:
        if not self.skip_space():
            return self.ended and self.no_call()
        if self.rest[0] == "{":
            return self.read_object(self._after, bare=True)
        if self.rest[0] == "[":
            return self._list()
        return self.no_call()

    def _list(self) -> bool:
        """A list of calls; the bracket is the list's only while an object follows."""
        inner = self.rest[1:].lstrip()
        if not inner and not self.ended:
            return False
        if not inner.startswith("{"):
            return self._give_back()
        self.opening += self.rest[: len(self.rest) - len(inner)]
        self.rest = inner
        return self.read_object(self._after, bare=True)

    def _give_back(self) -> bool:
        self.opening += self.rest[:1]
        self.rest = self.rest[1:]
        return self.no_call()

    def _tagged(self) -> bool:
        if not self.skip_space():
            return self.ended and self.no_call()
        return self.read_object(self._after, bare=False) if self.rest[0] == "{" else self.no_call()

    def _after(self) -> bool:
        """Between calls and after the last: separators and blanks are layout, other text is content."""
        bare = self.rest.lstrip("; ,]\t\r\n")
        if not bare:
            self.rest = ""
            return False
        if self._tag and not self.ended and overlap(bare, self._tag) == len(bare):
            self.rest = bare
            return False
        if self._tag and bare.startswith(self._tag):
            self.rest = bare
            self.state = self.content
            return True
        if bare[0] == "{":
            self.rest = bare
            return self.read_object(self._after, bare=True)
        self.state = self.content
        return True
