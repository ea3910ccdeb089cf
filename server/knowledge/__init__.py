"""Collections of documents that can be searched; knows models only as something that embeds, and nothing of HTTP."""

from server.knowledge.collection import Collection
from server.knowledge.document import Document, Hit, Unreadable, Unsupported
from server.knowledge.embedder import Embedder
from server.knowledge.extract import extract_upload, read_document
from server.knowledge.filter import Filter, parse_filter
from server.knowledge.report import CollectionStatus, Found, IngestReport
from server.knowledge.shelf import Shelf
from server.knowledge.stored import Held, Listed

__all__ = [
    "Collection",
    "CollectionStatus",
    "Document",
    "Embedder",
    "Filter",
    "Found",
    "Held",
    "Hit",
    "IngestReport",
    "Listed",
    "Shelf",
    "Unreadable",
    "Unsupported",
    "extract_upload",
    "parse_filter",
    "read_document",
]
