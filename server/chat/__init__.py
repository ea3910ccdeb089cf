"""Turns of a conversation: `turn` answers one, over the runtime's models and collections; knows nothing of HTTP."""

from server.chat.answer import Answer, Cited, Part
from server.chat.asked import Asked
from server.chat.turn import Started, passages, turn

__all__ = ["Answer", "Asked", "Cited", "Part", "Started", "passages", "turn"]
