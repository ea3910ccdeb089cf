"""OpenAI's files: uploaded, listed, read back and deleted."""

from server.api.files.routes import ROUTES

__all__ = ["ROUTES"]
