"""What lies in a file, as a document: one module a format. Knows neither chunks nor the store.

A file's first bytes go before its name: a PDF named `.txt` is read as PDF. Other names say how text is read; what is
none of the formats here is plain text where it is text at all.
"""

from server.knowledge.extract.document_of import read_document
from server.knowledge.extract.files import MAX_BYTES, extract, extract_upload, fingerprint
from server.knowledge.extract.formats import SUFFIX_OF_MEDIA

__all__ = ["MAX_BYTES", "SUFFIX_OF_MEDIA", "extract", "extract_upload", "fingerprint", "read_document"]
