"""OpenAI's vector stores: the recipe's collections and those clients make, their files, and search in them."""

from server.api.vector_stores import batches, files, search, stores

ROUTES = [*stores.ROUTES, *files.ROUTES, *batches.ROUTES, *search.ROUTES]

__all__ = ["ROUTES"]
