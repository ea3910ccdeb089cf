"""Calls as Nous Hermes and Qwen 2.5 and 3 write them: one JSON object between <tool_call> tags.

The format is that of the Hermes function calling data (NousResearch/Hermes-Function-Calling) and of the chat
templates of those models: `<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>`, several in lines.
"""

from collections.abc import Mapping, Sequence

from server.models.tool_formats.lark import json_calls, literal, quoted
from server.models.tool_formats.pieces import MOST_CALLS, ToolParser, ToolSpec
from server.models.tool_formats.stream import StreamParser

OPENING = "<tool_call>"
CLOSING = "</tool_call>"


class Hermes:
    name = "hermes"
    markers = (OPENING, CLOSING)

    def parser(self, tools: Sequence[ToolSpec] = ()) -> ToolParser:
        return _Parser()

    def grammar(self, tools: Sequence[ToolSpec], *, many: bool, special: Mapping[str, int] | None = None) -> str:
        rules = [
            f"start: call ({quoted(chr(10))} call){{0,{MOST_CALLS - 1}}}" if many else "start: call",
            f"call: {literal(OPENING + chr(10), special)} object {literal(chr(10) + CLOSING, special)}",
            json_calls(tools, "arguments"),
        ]
        return "\n".join(rules) + "\n"


class _Parser(StreamParser):
    def content(self) -> bool:
        return self.content_until(OPENING, self._opened)

    def _opened(self) -> bool:
        if not self.skip_space():
            return self.ended and self.no_call()
        if not self.rest.startswith("{"):
            return self.no_call()
        return self.read_object(self._closing, bare=False)

    def _closing(self) -> bool:
        """The closing tag, which some models leave out."""
        bare = self.rest.lstrip()
        if not self.ended and CLOSING.startswith(bare) and bare != CLOSING:
            return False
        if bare.startswith(CLOSING):
            self.rest = bare[len(CLOSING) :].lstrip()
        elif self.ended and CLOSING.startswith(bare):  # the answer was cut within it
            self.rest = ""
        self.state = self._between
        return True

    def _between(self) -> bool:
        """Blanks after a call, dropped before another call and at the end alike."""
        self.rest = self.rest.lstrip()
        if not self.rest:
            return False
        self.state = self.content
        return True
