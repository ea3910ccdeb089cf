"""Content identifiers as IPFS writes them: version 1, SHA-256, of raw bytes or of a dag-pb node.

Format: https://github.com/multiformats/cid.
"""

import base64
import hashlib
from typing import NamedTuple

RAW = 0x55
DAG_PB = 0x70
LENGTH = 36
"""Bytes of one such identifier."""

_SHA256 = b"\x12\x20"


class Cid(NamedTuple):
    """What a block is called: the kind of its bytes, and their SHA-256."""

    codec: int
    digest: bytes

    @property
    def binary(self) -> bytes:
        """As it stands in other blocks and in CAR files."""
        return b"\x01" + bytes([self.codec]) + _SHA256 + self.digest

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.binary).decode("ascii").rstrip("=").lower()


def of(codec: int, data: "bytes | bytearray | memoryview[int]") -> Cid:
    return Cid(codec, hashlib.sha256(data).digest())


def from_binary(data: bytes) -> Cid:
    """Raises ValueError for what is no identifier of this kind."""
    if len(data) != LENGTH or data[:1] != b"\x01" or data[1] not in (RAW, DAG_PB) or data[2:4] != _SHA256:
        raise ValueError("no CID of version 1 with SHA-256 of raw or dag-pb")
    return Cid(data[1], data[4:])


def parse(text: str) -> Cid:
    """Raises ValueError as `from_binary`, and for other letters than those of base 32."""
    if not text.startswith("b"):
        raise ValueError(f"{text[:80]!r} is no CID in base 32")
    letters = text[1:].upper()
    try:
        data = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no CID in base 32") from None
    return from_binary(data)
