"""Vector stores: the recipe's collections as clients see them, and the collections clients make. Knows no HTTP."""

from server.vector_stores.facts import Batch, Status, StoreFact, StoreFile, counts
from server.vector_stores.stores import Attached, Changes, VectorStores

__all__ = ["Attached", "Batch", "Changes", "Status", "StoreFact", "StoreFile", "VectorStores", "counts"]
