"""Collections of documents that can be searched; knows models only as something that embeds, and nothing of HTTP."""

from server.knowledge.collection import Collection
from server.knowledge.document import Document, Hit
from server.knowledge.embedder import Embedder
from server.knowledge.filter import Filter, parse_filter
from server.knowledge.report import CollectionStatus, Found, IngestReport

__all__ = [
    "Collection",
    "CollectionStatus",
    "Document",
    "Embedder",
    "Filter",
    "Found",
    "Hit",
    "IngestReport",
    "parse_filter",
]
