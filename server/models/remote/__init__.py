"""Models of other servers: requests are forwarded to them, and what they answer is read piece by piece."""

from server.models.remote.asking import Forwarded
from server.models.remote.model import RemoteModel
from server.models.remote.reading import Piece

__all__ = ["Forwarded", "Piece", "RemoteModel"]
