"""CAR files, version 1: blocks behind one another, which IPFS nodes import as they are.

Format: https://ipld.io/specs/transport/car/carv1/.
"""

from collections.abc import Iterator

from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid
from server.policies.backup.unixfs import read_varint, varint

_ROOTS = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
_VERSION = b"\x67version\x01"


def header(root: Cid) -> bytes:
    """What stands at the beginning: a map in dag-cbor, with one root and the version."""
    told = _ROOTS + root.binary + _VERSION
    return varint(len(told)) + told


def before(cid: Cid, size: int) -> bytes:
    """What stands before a block of `size` bytes."""
    return varint(cids.LENGTH + size) + cid.binary


def blocks(data: "memoryview[int]") -> Iterator[tuple[Cid, int, "memoryview[int]"]]:
    """Each block with where its bytes begin; checks no sum. Raises ValueError where the file is damaged or cut."""
    length, at = read_varint(data, 0)
    at += length
    while at < len(data):
        length, begin = read_varint(data, at)
        at = begin + length
        if length < cids.LENGTH or at > len(data):
            raise ValueError("a block that does not end")
        cid = cids.from_binary(bytes(data[begin : begin + cids.LENGTH]))
        yield cid, begin + cids.LENGTH, data[begin + cids.LENGTH : at]
