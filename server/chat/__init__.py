"""Turns of a conversation: `turn` answers one, over the runtime's models and collections; knows nothing of HTTP."""

from server.chat.answer import Answer, Cited, Part
from server.chat.asked import Asked
from server.chat.started import Started
from server.chat.turn import TEXT_PARTS, check_parts, count, passages, turn

__all__ = ["TEXT_PARTS", "Answer", "Asked", "Cited", "Part", "Started", "check_parts", "count", "passages", "turn"]
