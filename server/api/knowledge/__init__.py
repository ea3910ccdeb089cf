"""What the collections of the recipe hold, how they are kept, and what they did not take."""

from server.api.knowledge import dead_letters, overview

ROUTES = [*overview.ROUTES, *dead_letters.ROUTES]

__all__ = ["ROUTES"]
