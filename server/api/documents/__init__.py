"""Documents pushed into a collection of the recipe, listed and taken out."""

from server.api.documents.routes import ROUTES

__all__ = ["ROUTES"]
