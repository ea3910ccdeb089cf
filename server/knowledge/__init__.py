"""Collections of documents that can be searched; knows models only as something that embeds, and nothing of HTTP."""

from server.knowledge.collection import Collection
from server.knowledge.current import Current
from server.knowledge.document import Document, Hit, Unreadable, Unsupported
from server.knowledge.embedder import Embedder
from server.knowledge.extract import SUFFIX_OF_MEDIA, extract_upload, read_document
from server.knowledge.filter import Filter, parse_filter
from server.knowledge.report import CollectionStatus, Found, IngestReport, SourceState
from server.knowledge.rerank import reranked
from server.knowledge.shelf import Shelf
from server.knowledge.stored import Held, Listed

__all__ = [
    "SUFFIX_OF_MEDIA",
    "Collection",
    "CollectionStatus",
    "Current",
    "Document",
    "Embedder",
    "Filter",
    "Found",
    "Held",
    "Hit",
    "IngestReport",
    "Listed",
    "Shelf",
    "SourceState",
    "Unreadable",
    "Unsupported",
    "extract_upload",
    "parse_filter",
    "read_document",
    "reranked",
]
