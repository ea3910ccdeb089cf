"""`hearth engines`: which engines there are on this machine, and those that are compiled on it."""

from server.building.table import show

__all__ = ["show"]
