"""Files and folders as IPFS stores them, so that a snapshot has the CID that `ipfs add` gives the same files.

UnixFS (https://specs.ipfs.tech/unixfs/) in dag-pb nodes (https://ipld.io/specs/codecs/dag-pb/spec/): leaves of 256 KiB
are raw blocks, 174 links a node, balanced; what Kubo calls `--cid-version=1 --chunker=size-262144`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid

LEAF = 256 * 1024
"""Bytes of a leaf."""

WIDTH = 174
"""Links of a node."""

_FILE, _DIRECTORY = 2, 1

Emit = Callable[[Cid, bytes], None]
"""Takes the nodes that are made, each before those that link to it."""


class Link(NamedTuple):
    """`size` is the file's bytes below, `total` that of all blocks below, as links tell it."""

    cid: Cid
    size: int
    total: int


class Tree:
    """One file's nodes, made as its leaves arrive; holds a node's links a level and no leaf."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._levels: list[list[Link]] = []
        self.leaves = 0

    def leaf(self, cid: Cid, size: int) -> None:
        self.leaves += 1
        self._put(0, Link(cid, size, size))

    def root(self) -> Link:
        """To be asked once, when all leaves are there, of which an empty file has one, which is empty."""
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            self._close(level)
            level += 1
        return self._levels[level][0]

    def _put(self, level: int, link: Link) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == WIDTH:
            self._close(level)
        self._levels[level].append(link)

    def _close(self, level: int) -> None:
        """What stands in a level becomes one node above."""
        links, self._levels[level] = self._levels[level], []
        data = _uint(1, _FILE) + _uint(3, sum(link.size for link in links))
        data += b"".join(_uint(4, link.size) for link in links)
        self._put(level + 1, _node([("", link) for link in links], data, self._emit))


def directory(entries: Mapping[str, Link], emit: Emit) -> Link:
    """The node of a folder with these entries."""
    ordered = sorted(entries.items(), key=lambda entry: entry[0].encode())
    return _node(ordered, _uint(1, _DIRECTORY), emit)


def as_file(data: bytes, emit: Callable[[Cid, "bytes | memoryview[int]"], None]) -> Link:
    """The link to a file of these bytes, of which `emit` takes every block."""
    tree = Tree(emit)
    view = memoryview(data)
    for at in range(0, max(len(data), 1), LEAF):
        leaf = view[at : at + LEAF]
        cid = cids.of(cids.RAW, leaf)
        emit(cid, leaf)
        tree.leaf(cid, len(leaf))
    return tree.root()


@dataclass(frozen=True)
class Node:
    """A node as it is read: of a file, its links in order; of a folder, its entries too."""

    is_directory: bool
    links: tuple[tuple[str, Cid], ...]
    size: int


def read(block: bytes) -> Node:
    """Raises ValueError for what is no node of a file or folder as `Tree` and `directory` make them."""
    links: list[tuple[str, Cid]] = []
    data = b""
    for field, value in _fields(block):
        if field == 2 and isinstance(value, bytes):
            parts = dict(_fields(value))
            links.append((_text(parts.get(2, b"")), cids.from_binary(_bytes(parts.get(1)))))
        elif field == 1 and isinstance(value, bytes):
            data = value
    facts = dict(_fields(data))
    if facts.get(1) not in (_FILE, _DIRECTORY):
        raise ValueError("a node that is neither a file nor a folder")
    return Node(facts[1] == _DIRECTORY, tuple(links), int(facts.get(3, 0)))


# ---- protobuf, as far as both formats need it ------------------------------------------------------------------------


@lru_cache(4096)  # leaves are of one size, and so are most of a node's numbers
def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(data: "bytes | memoryview[int]", at: int) -> tuple[int, int]:
    """The number at `at` and where it ends. Raises ValueError where there is none."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number that does not end")
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _uint(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number)


def _sized(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def _node(links: list[tuple[str, Link]], data: bytes, emit: Emit) -> Link:
    """Links stand before the data, as the canonical form has it."""
    told = (_sized(1, link.cid.binary) + _sized(2, name.encode()) + _uint(3, link.total) for name, link in links)
    block = b"".join(_sized(2, each) for each in told) + _sized(1, data)
    cid = cids.of(cids.DAG_PB, block)
    emit(cid, block)
    return Link(cid, sum(link.size for _, link in links), len(block) + sum(link.total for _, link in links))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = read_varint(data, at)
        if tag & 7 == 0:
            number, at = read_varint(data, at)
            yield tag >> 3, number
        elif tag & 7 == 2:
            length, at = read_varint(data, at)
            if at + length > len(data):
                raise ValueError("a field that does not end")
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise ValueError(f"a field of wire type {tag & 7}")


def _bytes(value: int | bytes | None) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("a link to nothing")
    return value


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""
