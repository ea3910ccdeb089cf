"""How families of models write tool calls, and which of the formats a chat template uses; knows no engine."""

from server.models.tool_formats.hermes import OPENING as _HERMES
from server.models.tool_formats.hermes import Hermes
from server.models.tool_formats.mistral import ARGS, Mistral
from server.models.tool_formats.mistral import OPENING as _MISTRAL
from server.models.tool_formats.pieces import (
    CallArguments,
    CallStart,
    Piece,
    Text,
    ToolFormat,
    ToolParser,
    ToolSpec,
)
from server.models.tool_formats.whole import PYTHON_TAG, Json, Llama3, instructions

__all__ = [
    "CallArguments",
    "CallStart",
    "Piece",
    "Text",
    "ToolFormat",
    "ToolParser",
    "ToolSpec",
    "format_of",
    "instructions",
]


def format_of(template: str) -> ToolFormat:
    """The format a template writes earlier calls in, by the markers in its source; plain JSON where it has none."""
    if _HERMES in template:
        return Hermes()
    if _MISTRAL in template:
        return Mistral(args=ARGS in template)
    if PYTHON_TAG in template or ("<|start_header_id|>" in template and "tools" in template):
        return Llama3()
    return Json()
