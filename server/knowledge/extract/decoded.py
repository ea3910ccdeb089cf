"""Bytes as text: which encoding they are in, and what they are where they are no text at all."""

import codecs
import re

from server.knowledge.document import Unreadable, Unsupported

_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_FORMATS = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "an encrypted or old Office file"),
    (b"{\\rtf", "RTF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"\x1f\x8b", "compressed"),
    (b"SQLite format 3", "a database"),
)
_DECLARED = re.compile(rb"""<(?:meta\b[^>]*?|\?xml\b[^>]*?en)c(?:harset|oding)\s*=\s*["']?([A-Za-z0-9_.:-]{1,40})""")
_DECLARED_WITHIN = 4096


def decoded(raw: bytes, charset: str | None = None) -> str:
    """The text, with universal newlines. `charset` is the encoding somebody declared; UTF-8 where nobody did.

    No other encoding is guessed: a wrong guess is found by nobody. Raises Unreadable.
    """
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), None)
    if encoding is None:
        _check_is_text(raw)
        encoding = "utf-8"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if charset is None or encoding != "utf-8":
            raise Unreadable(f"it is not {encoding.upper()[:6]} (byte {error.start}); save it as UTF-8") from error
        text = _in(charset, raw)
    if "\0" in text:
        raise Unsupported("it is binary: it holds the character NUL")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def declared_charset(raw: bytes) -> str | None:
    """The encoding a page of HTML or XML names for itself."""
    found = _DECLARED.search(raw, 0, _DECLARED_WITHIN)
    return found[1].decode() if found else None


def _in(charset: str, raw: bytes) -> str:
    try:
        return raw.decode(charset)
    except LookupError as error:
        raise Unreadable(f"its encoding {charset[:40]!r} is not known; save it as UTF-8") from error
    except UnicodeError as error:
        raise Unreadable(f"it is not {charset[:40]}, as it says; save it as UTF-8") from error


def _check_is_text(raw: bytes) -> None:
    name = next((name for magic, name in _FORMATS if raw.startswith(magic)), None)
    if name is not None:
        raise Unsupported(f"it is {name}, which is not read here")
    at = raw.find(b"\0")
    if at >= 0:
        raise Unsupported(f"it is binary, not text (byte {at} is NUL)")
