"""Turns of a conversation: `turn` answers one, over the runtime's models and collections; knows nothing of HTTP."""

from server.chat.answer import Answer, Cited, Part
from server.chat.asked import FILE_SEARCH, Asked, Retrieval
from server.chat.equipping import permitted
from server.chat.ids import fresh_id
from server.chat.parts import TEXT_PARTS
from server.chat.started import Started
from server.chat.tool_run import ToolBegun, ToolDone, ToolRun
from server.chat.turn import check_parts, count, turn

__all__ = [
    "FILE_SEARCH",
    "TEXT_PARTS",
    "Answer",
    "Asked",
    "Cited",
    "Part",
    "Retrieval",
    "Started",
    "ToolBegun",
    "ToolDone",
    "ToolRun",
    "check_parts",
    "count",
    "fresh_id",
    "permitted",
    "turn",
]
