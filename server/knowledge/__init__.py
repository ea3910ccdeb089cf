"""Collections of documents that can be searched; knows models only as something that embeds, and nothing of HTTP."""

import os

# LanceDB reports every plan it finds unusual; set before its first import in this process, which reads it.
os.environ.setdefault("LANCEDB_LOG", "error")

from server.knowledge.bulk import BulkReport, RefusedLine, bring_lines
from server.knowledge.catalogue import Catalogue
from server.knowledge.collection import Collection
from server.knowledge.current import Current
from server.knowledge.document import Document, Hit, Unreadable, Unsupported, given_vector
from server.knowledge.embedder import Embedder
from server.knowledge.extract import SUFFIX_OF_MEDIA, extract_upload, read_document
from server.knowledge.filter import Filter, parse_filter
from server.knowledge.overview import Overview, overview
from server.knowledge.query_cache import QueryCache
from server.knowledge.refused import Refused, RefusedFile
from server.knowledge.report import (
    Advance,
    CollectionStatus,
    Found,
    IndexState,
    IngestReport,
    Rebuilding,
    SourceState,
    Upkeep,
)
from server.knowledge.rerank import reranked
from server.knowledge.shelf import Shelf
from server.knowledge.sources.dead_letters import DeadLetter, DeadLetters
from server.knowledge.sources.message import Poison
from server.knowledge.stored import Held, Listed
from server.knowledge.tier import Tier, TierName

__all__ = [
    "SUFFIX_OF_MEDIA",
    "Advance",
    "BulkReport",
    "Catalogue",
    "Collection",
    "CollectionStatus",
    "Current",
    "DeadLetter",
    "DeadLetters",
    "Document",
    "Embedder",
    "Filter",
    "Found",
    "Held",
    "Hit",
    "IndexState",
    "IngestReport",
    "Listed",
    "Overview",
    "Poison",
    "QueryCache",
    "Rebuilding",
    "Refused",
    "RefusedFile",
    "RefusedLine",
    "Shelf",
    "SourceState",
    "Tier",
    "TierName",
    "Unreadable",
    "Unsupported",
    "Upkeep",
    "bring_lines",
    "extract_upload",
    "given_vector",
    "overview",
    "parse_filter",
    "read_document",
    "reranked",
]
