"""The parts of an Office file (a ZIP of XML), read within bounds. Runs and fetches nothing that lies in it."""

import zipfile
import zlib
from io import BytesIO
from typing import Any

from server.knowledge.document import Unreadable

_MAX_ENTRIES = 10_000
_MAX_BYTES = 256 * 1024 * 1024
_MAX_PART = 32 * 1024 * 1024
_MAX_RATIO = 200
_RATIO_FROM = 1024 * 1024
"""Parts smaller than this may shrink as much as they like: little XML does."""
_BROKEN = "it is a broken Office file"


class Archive:
    """One Office file. Raises Unreadable where it is broken, encrypted, or would unpack to far more than it is."""

    def __init__(self, raw: bytes) -> None:
        try:
            self._zip = zipfile.ZipFile(BytesIO(raw))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise Unreadable(_BROKEN) from error
        entries = self._zip.infolist()
        swollen = any(
            each.file_size > _RATIO_FROM and each.file_size > _MAX_RATIO * max(1, each.compress_size)
            for each in entries
        )
        if len(entries) > _MAX_ENTRIES or sum(each.file_size for each in entries) > _MAX_BYTES or swollen:
            raise Unreadable("it would unpack to far more than it is (a ZIP bomb)")
        self._sizes = {each.filename: each.file_size for each in entries}

    def __contains__(self, name: str) -> bool:
        return name in self._sizes

    def xml(self, name: str) -> Any:
        """The root element of a part; None where there is no such part."""
        if name not in self._sizes:
            return None
        if self._sizes[name] > _MAX_PART:
            raise Unreadable(f"its part {name} is larger than {_MAX_PART // 1024**2} MiB")
        from lxml import etree

        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        try:
            # Never more than the size it declares: the reader stops there.
            root = etree.fromstring(self._zip.read(name), parser)
        except RuntimeError as error:  # a part with a password
            raise Unreadable("it is encrypted") from error
        except (etree.XMLSyntaxError, zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise Unreadable(_BROKEN) from error
        if root.getroottree().docinfo.doctype:
            raise Unreadable("its XML declares a document type, which no Office file does")
        return root
