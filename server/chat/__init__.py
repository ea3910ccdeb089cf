"""Turns of a conversation: `turn` answers one, over the runtime's models and collections; knows nothing of HTTP."""

from server.chat.answer import Answer, Cited, Part
from server.chat.asked import Asked
from server.chat.started import Started
from server.chat.turn import TEXT_PARTS, count, passages, turn

__all__ = ["TEXT_PARTS", "Answer", "Asked", "Cited", "Part", "Started", "count", "passages", "turn"]
